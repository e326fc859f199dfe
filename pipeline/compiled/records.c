/* Where each record of some Kafka record batches begins: a walk from record to record. */

#include "loops.h"

enum { LENGTH_VARINT_BYTES_MAX = 5, PADDING = 16 };

/* Find the position of each record's length.
 *
 * buffer     the records of batches, one behind the other, and PADDING
 * ends       int64[batches], where each batch ends
 * counts     int64[batches], how many records its header says it has
 * positions  int64[sum of counts], filled
 *
 * Says 0 where a batch does not end after so many records.
 */
LOOP int64_t record_positions(const uint8_t *buffer, int64_t size, const int64_t *ends, const int64_t *counts,
                              int64_t batches, int64_t *positions)
{
    int64_t position = 0;
    for (int64_t batch = 0; batch < batches; batch++) {
        if (counts[batch] < 0)
            return 0;
        for (int64_t record = 0; record < counts[batch]; record++) {
            if (position < 0 || position >= size - PADDING)
                return 0;
            *positions++ = position;
            int64_t length = 0;
            int bytes = 0;
            uint8_t byte;
            do {
                if (bytes == LENGTH_VARINT_BYTES_MAX)
                    return 0;
                byte = buffer[position + bytes];
                length |= (int64_t)(byte & 127) << 7 * bytes++;
            } while (byte > 127);
            position += bytes + (length >> 1); /* of a negative length too: decoding refuses it */
        }
        if (position != ends[batch])
            return 0;
    }
    return 1;
}
