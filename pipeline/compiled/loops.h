/* What the loops in C have in common. */

#ifndef STILLWATCH_LOOPS_H
#define STILLWATCH_LOOPS_H

/* To be raised, with VERSION of __init__.py, whenever a function or a struct changes: an older library is not used. */
#define LOOPS_VERSION 3

#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define LOOP __declspec(dllexport)
#else
#define LOOP __attribute__((visibility("default")))
#endif

/* A text of a column of Arrow views. */
typedef struct {
    int32_t size;
    uint8_t inside[12]; /* a text of up to 12 bytes, else its first four bytes, which buffer it lies in, and where */
} view_t;

enum { INSIDE = 12 };

#define EACH_BYTE 0x0101010101010101ULL

#endif
