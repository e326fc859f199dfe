/* Flat JSON objects of known fields → columns, in one pass over their bytes.
 *
 * What is taken here is proven: an object that holds each required field, each known field at most once and no other,
 * every value of its field's type and within its bounds, and JSON to its last byte.  Whatever else a payload is, it is
 * left to slower ways, and never decided here.
 *
 * Callers have made sure that the bytes are UTF-8, and that AFTER bytes can be read behind the last object: names are
 * compared by three words of eight bytes.
 */

#include "loops.h"

#if defined(__SSE2__) && !defined(STILLWATCH_PLAIN)
#define SIXTEEN_AT_ONCE
#include <emmintrin.h>
#endif

enum { TEXT, INTEGER, BOOLEAN, NUMBER, TIME };

enum { NAME_WORDS = 3, AFTER = 8 * NAME_WORDS, DIGITS_MAX = 18 };

typedef struct {
    uint64_t name[NAME_WORDS]; /* with the quote behind it */
    uint64_t mask[NAME_WORDS];
    int64_t minimum; /* of an integer; of a text, the fewest bytes */
    int64_t maximum;
    int32_t name_bytes;
    int32_t kind;
    int32_t slot; /* of its kind */
    int32_t required;
} field_t;

/* Where a column of each kind is written, row by row; `valid` is by field, the others by slot. */
typedef struct {
    int64_t rows;
    int64_t null; /* where a `null` stands in the bytes */
    uint8_t *valid;
    uint64_t *views;   /* [texts, rows, 2] */
    int64_t *integers; /* [integers and times, rows] */
    uint8_t *booleans; /* [booleans, rows] */
    int64_t *numbers;  /* [numbers, 2, rows]: where each begins, and its bytes */
    uint8_t *unescaped;
    int64_t unescaped_bytes;
} columns_t;

typedef struct {
    const uint8_t *at, *end;
} reader_t;

static inline uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void skip_blanks(reader_t *reader)
{
    while (reader->at < reader->end
           && (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\t' || *reader->at == '\r'))
        reader->at++;
}

static inline int is_end_of_value(const reader_t *reader)
{
    switch (reader->at < reader->end ? *reader->at : 0) {
    case ',': case '}': case ' ': case '\n': case '\t': case '\r':
        return 1;
    default:
        return 0;
    }
}

/* The high bit of each byte of a word that is zero, and perhaps of bytes above one that is. */
static inline uint64_t zero_bytes(uint64_t word) { return (word - EACH_BYTE) & ~word & (EACH_BYTE << 7); }

/* The first quote, backslash or control character from a place on; the end if there is none before it. */
static inline const uint8_t *special(const uint8_t *at, const uint8_t *end)
{
#if defined(SIXTEEN_AT_ONCE)
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1F);
    for (; at < end; at += 16) {
        const __m128i some = _mm_loadu_si128((const __m128i *)(const void *)at);
        const __m128i is_control = _mm_cmpeq_epi8(_mm_min_epu8(some, control), some);
        const __m128i is_special = _mm_or_si128(_mm_cmpeq_epi8(some, quote), _mm_cmpeq_epi8(some, backslash));
        const int found = _mm_movemask_epi8(_mm_or_si128(is_special, is_control));
        if (found) {
            at += __builtin_ctz((unsigned)found);
            return at < end ? at : end;
        }
    }
    return end;
#else
    for (; at < end; at += 8) {
        const uint64_t word = word_at(at);
        const uint64_t found = zero_bytes(word ^ (EACH_BYTE * '"')) | zero_bytes(word ^ (EACH_BYTE * '\\'))
                               | ((word - EACH_BYTE * ' ') & ~word & (EACH_BYTE << 7));
        if (found) {
            const uint8_t *first = at;
            while (*first != '"' && *first != '\\' && *first >= ' ')
                first++;
            return first < end ? first : end;
        }
    }
    return end;
#endif
}

static int hex_of(const uint8_t *at, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        const uint8_t digit = at[i], lower = digit | 0x20;
        if (digit >= '0' && digit <= '9')
            *code = *code << 4 | (uint32_t)(digit - '0');
        else if (lower >= 'a' && lower <= 'f')
            *code = *code << 4 | (uint32_t)(lower - 'a' + 10);
        else
            return 0;
    }
    return 1;
}

static uint8_t *put_utf8(uint8_t *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (uint8_t)code;
    } else if (code < 0x800) {
        *out++ = (uint8_t)(0xC0 | code >> 6);
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (uint8_t)(0xE0 | code >> 12);
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    } else {
        *out++ = (uint8_t)(0xF0 | code >> 18);
        *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    }
    return out;
}

/* Take the escape at a backslash out; NULL where it is none. */
static uint8_t *unescape(reader_t *reader, uint8_t *out)
{
    if (reader->end - reader->at < 2)
        return NULL;
    const uint8_t letter = reader->at[1];
    reader->at += 2;
    switch (letter) {
    case '"': case '\\': case '/':
        *out++ = letter;
        return out;
    case 'b': *out++ = '\b'; return out;
    case 'f': *out++ = '\f'; return out;
    case 'n': *out++ = '\n'; return out;
    case 'r': *out++ = '\r'; return out;
    case 't': *out++ = '\t'; return out;
    case 'u': break;
    default: return NULL;
    }
    uint32_t code, low;
    if (reader->end - reader->at < 4 || !hex_of(reader->at, &code) || (code >= 0xDC00 && code < 0xE000))
        return NULL;
    reader->at += 4;
    if (code >= 0xD800 && code < 0xDC00) { /* the first half of a character */
        if (reader->end - reader->at < 6 || reader->at[0] != '\\' || reader->at[1] != 'u'
            || !hex_of(reader->at + 2, &low) || low < 0xDC00 || low >= 0xE000)
            return NULL;
        reader->at += 6;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    return put_utf8(out, code);
}

/* A view of a text. */
static inline void set_view(uint64_t *view, const uint8_t *text, int64_t size, int32_t buffer, int64_t place)
{
    uint8_t made[16] = {0};
    const int32_t size_32 = (int32_t)size, place_32 = (int32_t)place;
    memcpy(made, &size_32, 4);
    if (size <= INSIDE) {
        memcpy(made + 4, text, (size_t)size);
    } else {
        memcpy(made + 4, text, 4);
        memcpy(made + 8, &buffer, 4);
        memcpy(made + 12, &place_32, 4);
    }
    memcpy(view, made, sizeof made);
}

/* A text whose opening quote has been read. */
static int read_text(reader_t *reader, const uint8_t *data, columns_t *columns, uint64_t *view, int64_t bytes_min)
{
    const uint8_t *begin = reader->at, *found = special(begin, reader->end);
    if (found < reader->end && *found == '"') {
        reader->at = found + 1;
        set_view(view, begin, found - begin, 0, begin - data);
        return found - begin >= bytes_min;
    }
    uint8_t *const text = columns->unescaped + columns->unescaped_bytes, *out = text;
    while (found < reader->end && *found == '\\') {
        memcpy(out, begin, (size_t)(found - begin));
        out += found - begin;
        reader->at = found;
        out = unescape(reader, out);
        if (out == NULL)
            return 0;
        begin = reader->at;
        found = special(begin, reader->end);
    }
    if (found >= reader->end || *found != '"')
        return 0; /* a control character, or no end */
    memcpy(out, begin, (size_t)(found - begin));
    out += found - begin;
    reader->at = found + 1;
    set_view(view, text, out - text, 1, columns->unescaped_bytes);
    columns->unescaped_bytes += out - text;
    return out - text >= bytes_min;
}

static int read_integer(reader_t *reader, int64_t *out)
{
    const int negative = *reader->at == '-';
    reader->at += negative;
    const uint8_t *begin = reader->at;
    int64_t number = 0;
    while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9' && reader->at - begin < DIGITS_MAX)
        number = number * 10 + (*reader->at++ - '0');
    const int64_t digits = reader->at - begin;
    if (digits < 1 || (*begin == '0' && (digits > 1 || negative)))
        return 0; /* 007 is no JSON, and -0 no integer */
    *out = negative ? -number : number;
    return is_end_of_value(reader);
}

static inline int is_of_number(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || byte == '.' || byte == '-' || byte == '+' || byte == 'e' || byte == 'E';
}

static int read_word(reader_t *reader, const char *word, int64_t size)
{
    if (reader->end - reader->at < size || memcmp(reader->at, word, (size_t)size) != 0)
        return 0;
    reader->at += size;
    return is_end_of_value(reader);
}

static int digits(const uint8_t *at, int count, int64_t *out)
{
    int64_t number = 0;
    for (int i = 0; i < count; i++) {
        if (at[i] < '0' || at[i] > '9')
            return 0;
        number = number * 10 + (at[i] - '0');
    }
    *out = number;
    return 1;
}

/* Days since 1970-01-01 of a date of the Gregorian calendar; Howard Hinnant, chrono-compatible low-level date algorithms. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    const int64_t era = year / 400, of_era = year - era * 400;
    const int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

/* A time of RFC 3339 whose opening quote has been read, in microseconds since the epoch; more digits are cut. */
static int read_time(reader_t *reader, int64_t *out)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const uint8_t *at = reader->at;
    int64_t year, month, day, hour, minute, second, micros = 0, offset_hour = 0, offset_minute = 0;
    if (reader->end - at < 20 || !digits(at, 4, &year) || at[4] != '-' || !digits(at + 5, 2, &month) || at[7] != '-'
        || !digits(at + 8, 2, &day) || (at[10] != 'T' && at[10] != 't' && at[10] != ' ') || !digits(at + 11, 2, &hour)
        || at[13] != ':' || !digits(at + 14, 2, &minute) || at[16] != ':' || !digits(at + 17, 2, &second))
        return 0;
    const int is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days[month - 1] + (month == 2 && is_leap) || hour > 23
        || minute > 59 || second > 59)
        return 0;
    at += 19;
    if (*at == '.') {
        int64_t unit = 100000;
        const uint8_t *first = ++at;
        for (; at < reader->end && *at >= '0' && *at <= '9'; at++) {
            micros += (*at - '0') * unit;
            unit /= 10;
        }
        if (at == first)
            return 0;
    }
    if (reader->end - at < 7) /* what a zone and the end of the object take at most, or nearly */
        if (reader->end - at < 2 || (*at != 'Z' && *at != 'z'))
            return 0;
    int sign = 0;
    if (*at == 'Z' || *at == 'z') {
        at++;
    } else {
        sign = *at == '+' ? 1 : *at == '-' ? -1 : 0;
        if (!sign || !digits(at + 1, 2, &offset_hour) || at[3] != ':' || !digits(at + 4, 2, &offset_minute)
            || offset_hour > 23 || offset_minute > 59)
            return 0;
        at += 6;
    }
    if (*at != '"')
        return 0;
    reader->at = at + 1;
    const int64_t minutes = (days_of(year, month, day) * 24 + hour) * 60 + minute - sign * (offset_hour * 60 + offset_minute);
    *out = (minutes * 60 + second) * 1000000 + micros;
    return is_end_of_value(reader);
}

/* Write a field's null into some rows. */
static void set_null(const field_t *field, int number, columns_t *columns, int64_t row)
{
    const int64_t rows = columns->rows;
    columns->valid[number * rows + row] = 0;
    switch (field->kind) {
    case TEXT:
        memset(columns->views + (field->slot * rows + row) * 2, 0, 16);
        break;
    case INTEGER: case TIME:
        columns->integers[field->slot * rows + row] = 0;
        break;
    case BOOLEAN:
        columns->booleans[field->slot * rows + row] = 0;
        break;
    default:
        columns->numbers[2 * field->slot * rows + row] = columns->null;
        columns->numbers[(2 * field->slot + 1) * rows + row] = 4;
    }
}

static int read_value(reader_t *reader, const uint8_t *data, const field_t *field, columns_t *columns, int64_t row)
{
    const int64_t place = field->slot * columns->rows + row;
    const uint8_t first = reader->at < reader->end ? *reader->at : 0;
    switch (field->kind) {
    case TEXT:
        if (first != '"')
            return 0;
        reader->at++;
        return read_text(reader, data, columns, columns->views + 2 * place, field->minimum);
    case TIME:
        if (first != '"')
            return 0;
        reader->at++;
        return read_time(reader, columns->integers + place);
    case INTEGER:
        return read_integer(reader, columns->integers + place) && columns->integers[place] >= field->minimum
               && columns->integers[place] <= field->maximum;
    case BOOLEAN:
        columns->booleans[place] = first == 't';
        return first == 't' ? read_word(reader, "true", 4) : read_word(reader, "false", 5);
    default: {
        const uint8_t *begin = reader->at;
        if (first != '-' && (first < '0' || first > '9'))
            return 0;
        while (reader->at < reader->end && is_of_number(*reader->at))
            reader->at++;
        columns->numbers[2 * field->slot * columns->rows + row] = begin - data;
        columns->numbers[(2 * field->slot + 1) * columns->rows + row] = reader->at - begin;
        return is_end_of_value(reader);
    }
    }
}

static inline int is_named(const field_t *field, const uint8_t *at)
{
    return ((word_at(at) ^ field->name[0]) & field->mask[0]) == 0
           && ((word_at(at + 8) ^ field->name[1]) & field->mask[1]) == 0
           && ((word_at(at + 16) ^ field->name[2]) & field->mask[2]) == 0;
}

/* Read one object; the fields that it has, or 0 where it is not proven. */
static uint64_t read_object(reader_t reader, const uint8_t *data, const field_t *fields, int count, uint8_t *follower,
                            columns_t *columns, int64_t row, uint64_t *filled)
{
    uint64_t seen = 0;
    int last = count;
    *filled = 0;
    skip_blanks(&reader);
    if (reader.at >= reader.end || *reader.at++ != '{')
        return 0;
    for (;;) {
        skip_blanks(&reader);
        if (reader.at >= reader.end || *reader.at++ != '"')
            return 0;
        int number = follower[last];
        if (!is_named(fields + number, reader.at)) {
            for (number = 0; number < count && !is_named(fields + number, reader.at); number++)
                ;
            if (number == count)
                return 0;
            follower[last] = (uint8_t)number;
        }
        const field_t *field = fields + number;
        const uint64_t bit = (uint64_t)1 << number;
        if (seen & bit)
            return 0; /* twice */
        seen |= bit;
        last = number;
        reader.at += field->name_bytes + 1;
        skip_blanks(&reader);
        if (reader.at >= reader.end || *reader.at++ != ':')
            return 0;
        skip_blanks(&reader);
        if (reader.at < reader.end && *reader.at == 'n') {
            if (!read_word(&reader, "null", 4) || field->required)
                return 0;
        } else {
            *filled |= bit;
            if (!read_value(&reader, data, field, columns, row))
                return 0;
        }
        skip_blanks(&reader);
        if (reader.at >= reader.end)
            return 0;
        const uint8_t next = *reader.at++;
        if (next == '}')
            break;
        if (next != ',')
            return 0;
    }
    skip_blanks(&reader);
    return reader.at == reader.end ? seen : 0;
}

/* Read objects into columns.
 *
 * starts  int64[rows + 1]
 * fields  at most 63
 * valid   uint8[fields, rows], filled for fields that any object has
 * counts  int64[fields], filled: how many rows have a value
 * proven  uint8[rows], filled; of other rows all values are null
 */
LOOP void events(const uint8_t *data, const int64_t *starts, int64_t rows, const field_t *fields, int64_t count,
                 uint8_t *valid, uint64_t *views, int64_t *integers, uint8_t *booleans, int64_t *numbers,
                 uint8_t *unescaped, int64_t *counts, uint8_t *proven)
{
    columns_t columns = {rows, starts[rows], valid, views, integers, booleans, numbers, unescaped, 0};
    uint64_t required = 0, ever = 0;
    uint8_t follower[64] = {0};
    for (int number = 0; number < count; number++) {
        counts[number] = 0;
        required |= (uint64_t)(fields[number].required != 0) << number;
    }
    for (int64_t row = 0; row < rows; row++) {
        const reader_t reader = {data + starts[row], data + starts[row + 1]};
        const int64_t unescaped_before = columns.unescaped_bytes;
        uint64_t filled;
        const uint64_t seen = read_object(reader, data, fields, (int)count, follower, &columns, row, &filled);
        const uint64_t touched = filled;
        proven[row] = seen != 0 && (filled & required) == required;
        if (!proven[row]) {
            filled = 0;
            columns.unescaped_bytes = unescaped_before;
        }
        const uint64_t fresh = touched & ~ever;
        ever |= touched;
        for (int number = 0; number < count; number++) {
            const uint64_t bit = (uint64_t)1 << number;
            if (!(ever & bit))
                continue;
            if (fresh & bit)
                for (int64_t before = 0; before < row; before++)
                    set_null(fields + number, number, &columns, before);
            if (filled & bit) {
                columns.valid[number * rows + row] = 1;
                counts[number]++;
            } else {
                set_null(fields + number, number, &columns, row);
            }
        }
    }
}

/* Move the long texts of a column behind each other into a buffer of their own; says how many bytes they have.
 *
 * out  NULL: only count
 */
LOOP int64_t move(view_t *views, int64_t count, const uint8_t *const *buffers, uint8_t *out)
{
    int64_t moved = 0;
    for (int64_t i = 0; i < count; i++) {
        view_t *view = views + i;
        if (view->size <= INSIDE)
            continue;
        if (out != NULL) {
            int32_t place[2];
            memcpy(place, view->inside + 4, sizeof place);
            memcpy(out + moved, buffers[place[0]] + place[1], (size_t)view->size);
            place[0] = 0;
            place[1] = (int32_t)moved;
            memcpy(view->inside + 4, place, sizeof place);
        }
        moved += view->size;
    }
    return moved;
}
