/* The replay of tasks/reconstruction/book_kernels.py once more, in C: the same table of orders, queues, ladder and touch, on the same columns.
   What a valid session without snapshots in its middle needs; the benchmark compares its end with the generator's truth. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint64_t id; int64_t size; int32_t level, side, prev, next; } order_t;
typedef struct { int64_t size; int32_t count, head, tail, pad; } level_t;
typedef struct {
    uint64_t *table;
    order_t *orders;
    level_t *levels;
    int64_t width, pool, shift, slots, free, used, live, best[2], floor_[2], high[2];
    int64_t event_ends, crossed, fills, unknown, counted[7];
    int64_t top_rank[2], top_size[2], top_count[2];
} book_t;

#define MULTIPLIER 0x9E3779B97F4A7C15ull
#define UPPER 0xFFFFFFFF00000000ull
#define LOWER 0xFFFFFFFFull

book_t *book_new(int64_t width, int64_t pool, int64_t bits) {
    book_t *b = calloc(1, sizeof *b);
    b->width = width, b->pool = pool, b->slots = (int64_t)1 << bits, b->shift = 64 - bits, b->free = -1;
    b->table = aligned_alloc(64, b->slots * sizeof *b->table);
    memset(b->table, 0, b->slots * sizeof *b->table);
    b->orders = aligned_alloc(64, pool * sizeof *b->orders);
    memset(b->orders, 0, pool * sizeof *b->orders);
    b->levels = calloc(2 * width, sizeof *b->levels);
    for (int s = 0; s < 2; s++) b->best[s] = -1, b->high[s] = -1, b->floor_[s] = -1;
    return b;
}

void book_free(book_t *b) { free(b->table), free(b->orders), free(b->levels), free(b); }

void book_end(const book_t *b, int64_t *out) {
    out[0] = b->event_ends, out[1] = b->live, out[2] = b->unknown, out[3] = b->crossed, out[4] = b->fills;
    for (int s = 0; s < 2; s++) out[5 + 2 * s] = b->top_rank[s], out[6 + 2 * s] = b->top_size[s];
}

static inline int64_t find(const book_t *b, uint64_t id) {
    uint64_t mixed = id * MULTIPLIER, mask = b->slots - 1, slot = mixed >> b->shift, entry;
    while ((entry = b->table[slot]) != 0) {
        if (((entry ^ mixed) & UPPER) == 0 && b->orders[(entry & LOWER) - 1].id == id) return (int64_t)slot;
        slot = (slot + 1) & mask;
    }
    return -1;
}

static inline void insert(book_t *b, uint64_t id, int64_t reference) {
    uint64_t mixed = id * MULTIPLIER, mask = b->slots - 1, slot = mixed >> b->shift;
    while (b->table[slot] != 0) slot = (slot + 1) & mask;
    b->table[slot] = (mixed & UPPER) | (uint64_t)(reference + 1);
}

static inline void erase(book_t *b, int64_t slot) {
    uint64_t mask = b->slots - 1, hole = slot, probe = slot, entry;
    for (;;) {
        probe = (probe + 1) & mask;
        if ((entry = b->table[probe]) == 0) break;
        if (((probe - (entry >> b->shift)) & mask) >= ((probe - hole) & mask)) b->table[hole] = entry, hole = probe;
    }
    b->table[hole] = 0;
}

static inline void touched(book_t *b, int side, int64_t level) {
    if (level >= b->floor_[side] && level > b->high[side]) b->high[side] = level;
}

static inline void link_order(book_t *b, int64_t reference) {
    order_t *o = &b->orders[reference];
    level_t *l = &b->levels[o->side * b->width + o->level];
    int32_t tail = l->count > 0 ? l->tail : -1;
    o->prev = tail, o->next = -1;
    if (tail >= 0) b->orders[tail].next = (int32_t)reference; else l->head = (int32_t)reference;
    l->tail = (int32_t)reference;
    if (l->count == 0) l->size = 0;
    l->count++, l->size += o->size;
    if (o->level > b->best[o->side]) b->best[o->side] = o->level;
    touched(b, o->side, o->level);
}

static inline void unlink_order(book_t *b, int64_t reference) {
    order_t *o = &b->orders[reference];
    int side = o->side;
    level_t *levels = b->levels + side * b->width, *l = &levels[o->level];
    if (o->prev >= 0) b->orders[o->prev].next = o->next; else l->head = o->next;
    if (o->next >= 0) b->orders[o->next].prev = o->prev; else l->tail = o->prev;
    l->count--, l->size -= o->size;
    touched(b, side, o->level);
    if (l->count == 0 && o->level == b->best[side]) {
        int64_t best = b->best[side];
        while (best >= 0 && levels[best].count == 0) best--;
        b->best[side] = best;
    }
}

static inline void add(book_t *b, uint64_t id, int side, int64_t level, int64_t size) {
    int64_t reference = b->free;
    if (reference >= 0) b->free = b->orders[reference].next; else reference = b->used++;
    order_t *o = &b->orders[reference];
    o->id = id, o->size = size, o->level = (int32_t)level, o->side = side;
    link_order(b, reference);
    insert(b, id, reference);
    b->live++;
}

static inline void drop(book_t *b, int64_t slot, int64_t reference) {
    unlink_order(b, reference);
    erase(b, slot);
    b->orders[reference].next = (int32_t)b->free;
    b->free = reference, b->live--;
}

static void clear(book_t *b) {
    memset(b->table, 0, b->slots * sizeof *b->table);
    memset(b->levels, 0, 2 * b->width * sizeof *b->levels);
    b->free = -1, b->used = 0, b->live = 0;
    for (int s = 0; s < 2; s++) b->best[s] = -1, b->floor_[s] = -1, b->high[s] = b->width;
}

/* Records 0..n-1. Returns the record at which the pool is full, n when all are done. */
int64_t replay(book_t *b, int64_t n, const uint8_t *action, const uint8_t *side_code, const uint8_t *flags, const int32_t *rank,
               const uint32_t *size_of, const uint64_t *id_of) {
    for (int64_t i = 0; i < n; i++) {
        if (b->free < 0 && b->used >= b->pool) return i;
        if (i + 16 < n) {
            __builtin_prefetch(&b->table[(id_of[i + 16] * MULTIPLIER) >> b->shift], 1);
            uint64_t entry = b->table[(id_of[i + 8] * MULTIPLIER) >> b->shift];
            __builtin_prefetch(&b->orders[(entry & LOWER) - 1], 1);
        }
        int side = side_code[i] == 'B' ? 0 : 1;
        int64_t level = side == 0 ? rank[i] : b->width - 1 - rank[i], size = size_of[i], slot;
        uint64_t id = id_of[i];
        int rests = size > 0 && rank[i] >= 0 && (side_code[i] == 'A' || side_code[i] == 'B');
        switch (action[i]) {
        case 'A':
            b->counted[0]++;
            if ((slot = find(b, id)) >= 0) b->unknown++, drop(b, slot, (int64_t)(b->table[slot] & LOWER) - 1);
            if (rests) add(b, id, side, level, size);
            break;
        case 'C':
            b->counted[1]++;
            if ((slot = find(b, id)) < 0) { b->unknown++; break; }
            {
                int64_t reference = (int64_t)(b->table[slot] & LOWER) - 1;
                order_t *o = &b->orders[reference];
                if (size < o->size) {
                    o->size -= size;
                    b->levels[o->side * b->width + o->level].size -= size;
                    touched(b, o->side, o->level);
                } else drop(b, slot, reference);
            }
            break;
        case 'M':
            b->counted[2]++;
            if ((slot = find(b, id)) < 0) { b->unknown++; if (rests) add(b, id, side, level, size); break; }
            {
                int64_t reference = (int64_t)(b->table[slot] & LOWER) - 1;
                order_t *o = &b->orders[reference];
                if (!rests) drop(b, slot, reference);
                else if (o->side == side && o->level == level && size <= o->size) {
                    b->levels[side * b->width + level].size -= o->size - size;
                    o->size = size;
                    touched(b, side, level);
                } else {
                    unlink_order(b, reference);
                    o->side = side, o->level = (int32_t)level, o->size = size;
                    link_order(b, reference);
                }
            }
            break;
        case 'F':
            b->counted[3]++;
            if (id != 0 && (slot = find(b, id)) >= 0 && b->orders[(b->table[slot] & LOWER) - 1].side == side) b->fills++;
            break;
        case 'R': b->counted[4]++; clear(b); break;
        case 'T': b->counted[5]++; break;
        default: b->counted[6]++;
        }
        if (flags[i] & 128) {
            b->event_ends++;
            for (int s = 0; s < 2; s++)
                if (b->high[s] >= 0) {
                    int64_t best = b->best[s];
                    b->top_rank[s] = best < 0 ? -1 : s == 0 ? best : b->width - 1 - best;
                    b->top_size[s] = best < 0 ? 0 : b->levels[s * b->width + best].size;
                    b->top_count[s] = best < 0 ? 0 : b->levels[s * b->width + best].count;
                    b->floor_[s] = best, b->high[s] = -1;
                }
            if (b->best[0] >= 0 && b->best[1] >= 0 && b->best[0] >= b->width - 1 - b->best[1]) b->crossed++;
        }
    }
    return n;
}
