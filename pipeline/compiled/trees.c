/* Loops that NumPy would make many passes for.
 *
 * Every function does to the bit what the NumPy code beside its caller does, in the same order of additions; the tests
 * hold the two together.  Nothing is allocated here, nothing is kept, and no Python object is touched, so that the file
 * needs no Python headers and runs without the interpreter's lock.  Callers check shapes, types and ranges
 * (pipeline/compiled/__init__.py, and the arrays of trees where they are made).
 *
 * Compiled without contraction of a * b + c: one rounding less is another result.
 */

#include "loops.h"

LOOP int64_t loops_version(void) { return LOOPS_VERSION; }

typedef struct {
    int32_t left;      /* a leaf's is the leaf itself; a right child follows its left sibling */
    int32_t column;    /* of the values; any that there is for a leaf */
    double threshold;  /* infinite for a leaf */
} node_t;

enum { TOGETHER = 16 }; /* paths that descend side by side: what one waits for in memory, the others use */

/* The leaf of each row in each tree.
 *
 * roots   int64[trees]
 * values  float64[rows, columns], without NaN
 * leaves  int64[trees, rows], filled
 */
LOOP void leaves(const node_t *nodes, const int64_t *roots, int64_t trees, const double *values, int64_t rows,
                 int64_t columns, int64_t *leaves_out)
{
    for (int64_t tree = 0; tree < trees; tree++) {
        const int32_t root = (int32_t)roots[tree];
        int64_t *out = leaves_out + tree * rows;
        int64_t row = 0;
        for (; row + TOGETHER <= rows; row += TOGETHER) {
            int32_t at[TOGETHER];
            for (int i = 0; i < TOGETHER; i++)
                at[i] = root;
            int32_t moved;
            do {
                moved = 0;
                for (int i = 0; i < TOGETHER; i++) {
                    const node_t node = nodes[at[i]];
                    const int32_t below = node.left + (values[(row + i) * columns + node.column] > node.threshold);
                    moved |= below ^ at[i];
                    at[i] = below;
                }
            } while (moved);
            for (int i = 0; i < TOGETHER; i++)
                out[row + i] = at[i];
        }
        for (; row < rows; row++) {
            const double *own = values + row * columns;
            int32_t at = root, above;
            do {
                above = at;
                at = nodes[above].left + (own[nodes[above].column] > nodes[above].threshold);
            } while (at != above);
            out[row] = at;
        }
    }
}

/* For each row the sum of what its leaves say, tree by tree.
 *
 * leaves  int64[trees, rows]
 * told    float64[nodes, kinds]
 * sums    float64[rows, kinds], filled
 */
LOOP void told_at(const int64_t *leaves_in, int64_t trees, int64_t rows, const double *told, int64_t kinds, double *sums)
{
    for (int64_t i = 0; i < rows * kinds; i++)
        sums[i] = 0.0;
    for (int64_t tree = 0; tree < trees; tree++)
        for (int64_t row = 0; row < rows; row++) {
            const double *said = told + leaves_in[tree * rows + row] * kinds;
            for (int64_t kind = 0; kind < kinds; kind++)
                sums[row * kinds + kind] += said[kind];
        }
}

/* For each row how much the splits on each column moved what is told of one kind, summed over all trees.
 *
 * Level by level: what one level moved is summed by column over the trees and then added to the levels above it.
 *
 * kind     int64[rows], a column of told
 * room     int32[trees] and float64[columns], overwritten
 * moved    float64[rows, columns], zero, filled
 */
LOOP void moved_by(const node_t *nodes, const int64_t *roots, int64_t trees, const double *values, int64_t rows,
                   int64_t columns, const double *told, int64_t kinds, const int64_t *kind, int32_t *at_room,
                   double *level_room, double *moved)
{
    for (int64_t row = 0; row < rows; row++) {
        const double *own = values + row * columns;
        const double *said = told + kind[row];
        double *sums = moved + row * columns;
        int64_t going = trees;
        for (int64_t tree = 0; tree < trees; tree++)
            at_room[tree] = (int32_t)roots[tree];
        while (going) {
            int64_t still = 0;
            for (int64_t column = 0; column < columns; column++)
                level_room[column] = 0.0;
            for (int64_t path = 0; path < going; path++) {
                const int32_t at = at_room[path];
                const node_t node = nodes[at];
                const int32_t below = node.left + (own[node.column] > node.threshold);
                level_room[node.column] += said[below * kinds] - said[at * kinds];
                if (nodes[below].left != below)
                    at_room[still++] = below;
            }
            for (int64_t column = 0; column < columns; column++)
                sums[column] += level_room[column];
            going = still;
        }
    }
}
