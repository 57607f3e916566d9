/*
 * test_pagetrace.c - the trace reader and the replay on traces made here: exact figures, and damage of every kind.
 */
#include "guest_fixture.h"
#include "../bench/after.h"
#include "../bench/world.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <cmocka.h>

#define PFNS 4096u

struct builder {
    uint8_t bytes[1 << 16];
    size_t at;
    uint64_t last[2];
    unsigned counts[TRACE_KINDS];
};

static void put_varint(struct builder *b, uint64_t n)
{
    do {
        b->bytes[b->at++] = (uint8_t)((n & 127) | (n > 127 ? 128 : 0));
        n >>= 7;
    } while (n != 0);
}

static void put_zigzag(struct builder *b, int64_t n)
{
    put_varint(b, n < 0 ? (uint64_t)(-n) * 2 - 1 : (uint64_t)n * 2);
}

static void put_head(struct builder *b, enum trace_kind kind, unsigned order, unsigned type, unsigned flags)
{
    b->bytes[b->at++] = (uint8_t)((unsigned)kind | order << 4);
    b->bytes[b->at++] = (uint8_t)(type << 1 | flags << 3);
    put_varint(b, 10);
    b->counts[kind]++;
}

static void put_pfn(struct builder *b, uint64_t pfn)
{
    put_zigzag(b, (int64_t)pfn - (int64_t)b->last[0]);
    b->last[0] = pfn;
}

/* gfp_table of the header: 0 unmovable, 1 movable, 2 reclaimable, 3 accounted */
static void put_alloc(struct builder *b, uint64_t pfn, unsigned order, unsigned gfp)
{
    put_head(b, TRACE_ALLOC, order, gfp == 3 ? 0 : gfp, 0);
    put_pfn(b, pfn);
    put_varint(b, gfp);
}

static void put_free(struct builder *b, uint64_t pfn, unsigned order, unsigned flags)
{
    put_head(b, TRACE_FREE, order, 0, flags);
    put_pfn(b, pfn);
}

static void put_migrate(struct builder *b, uint64_t from, uint64_t to)
{
    put_head(b, TRACE_MIGRATE, 0, 0, 0);
    put_pfn(b, from);
    put_zigzag(b, (int64_t)to - (int64_t)from);
}

/* The whole file into out; returns its length. */
static size_t finish(const struct builder *b, const char *header_change, uint8_t *out, size_t capacity)
{
    char header[2000];
    int n = snprintf(header, sizeof(header),
                     "{\"name\":\"made\",\"memory_mib\":16,\"pageblock_order\":9,\"max_order\":10,\"pfns\":%u,\"complete\":true,\"records\":%u,"
                     "\"counts\":{\"alloc\":%u,\"free\":%u,\"migrate\":%u},\"inferred\":{},\"init_alloc_runs\":[[0,100],[4000,96]],"
                     "\"hole_runs\":[[100,28]],\"zones\":[{\"name\":\"DMA32\",\"start_pfn\":0,\"spanned\":4096,\"present\":4000,"
                     "\"managed\":3900,\"min\":8,\"low\":10,\"high\":12}],\"gfp_table\":[3264,1314250,3280,4197568]%s}",
                     PFNS, b->counts[0] + b->counts[1] + b->counts[2], b->counts[TRACE_ALLOC], b->counts[TRACE_FREE],
                     b->counts[TRACE_MIGRATE], header_change);
    int m = snprintf((char *)out, capacity, "PAGETRACE 1\n%d\n%s\n", n, header);

    memcpy(out + m, b->bytes, b->at);
    return (size_t)m + b->at;
}

static const char *write_file(const uint8_t *data, size_t bytes)
{
    static char path[64];
    FILE *file;

    snprintf(path, sizeof(path), "/tmp/pagetrace-test-%d", (int)getpid());
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
    return path;
}

/* Replay; 0: done (the world is the caller's to free), 1: refused with an error text. */
static int run(const uint8_t *data, size_t bytes, struct world *w, char *error, size_t error_bytes)
{
    struct world_options options = { .policy = CLAIM_CLEAR_FIRST, .claim_window = -1, .proactiveness = -1 };
    const char *path = write_file(data, bytes);
    struct pagetrace t;
    struct trace_record r;
    int more = -1;

    *error = '\0';
    if (!pagetrace_open(&t, path, error, error_bytes)) {
        assert_true(*error != '\0');
        return 1;
    }
    if (world_init(w, &t, &options, error, error_bytes)) {
        while ((more = pagetrace_next(&t, &r, error, error_bytes)) == 1 && world_step(w, &r, error, error_bytes)) {
        }
        if (more != 0) {
            world_free(w);
        }
    }
    pagetrace_close(&t);
    assert_true(more == 0 || *error != '\0');
    return more != 0;
}

/* A small history: an object that the trace migrates, a block that goes back in parts, boot memory that is freed. */
static void history(struct builder *b)
{
    *b = (struct builder){ .at = 0 };
    put_alloc(b, 3000, 0, 1);
    put_alloc(b, 512, 9, 1);
    put_alloc(b, 3001, 0, 0);
    put_alloc(b, 3002, 0, 3);
    put_alloc(b, 3004, 2, 2);
    put_migrate(b, 3000, 2000);
    put_free(b, 3000, 0, TRACE_FREE_MOVED);
    put_free(b, 520, 3, 4);                     /* a part of the block of 512 */
    put_free(b, 3001, 0, 0);
    put_free(b, 4000, 5, 0);                    /* from before the trace */
}

static void test_replay(void **state)
{
    static uint8_t file[1 << 17];
    struct builder b;
    struct world w;
    struct block_figures f;
    struct free_figures free_state;
    char error[300];

    (void)state;
    history(&b);
    assert_int_equal(run(file, finish(&b, "", file, sizeof(file)), &w, error, sizeof(error)), 0);
    assert_int_equal(world_check(&w), 0);
    assert_int_equal(w.allocs, 5);
    assert_int_equal(w.frees, 3);
    assert_int_equal(w.alloc_failed, 0);
    assert_int_equal(w.live_pages, 100 + 96 - 32 + 1 + 512 - 8 + 1 + 4);
    assert_true(w.object_of[2000] >= OBJECT_FIRST && w.object_of[3000] == OBJECT_NONE);
    mm_drain(&w.mm);
    figures_blocks(&w.mm, &f);
    assert_int_equal(f.live_movable, 1 + 504);
    assert_int_equal(f.live_unmovable, 1);
    assert_int_equal(f.live_reclaimable, 4);
    assert_int_equal(f.live_boot, 100 + 64);
    assert_int_equal(f.needed_if_packed, 1);
    assert_int_equal(f.polluted, 0);
    figures_free(&w.mm, &free_state);
    assert_int_equal(free_state.free_pages, PFNS - 28 - w.live_pages);
    world_free(&w);
}

static void test_trials(void **state)
{
    static uint8_t file[1 << 17];
    struct builder b = { .at = 0 };
    struct compact_trial compact;
    struct huge_trial huge;
    struct offline_trial *offline = calloc(1, sizeof(*offline));
    struct world w;
    char error[300];

    (void)state;
    /* Every second page of 2048 is left: four blocks' worth of holes in movable blocks. */
    for (uint64_t pfn = 512; pfn < 512 + 2048; pfn++) {
        put_alloc(&b, pfn, 0, 1);
    }
    for (uint64_t pfn = 512; pfn < 512 + 2048; pfn += 2) {
        put_free(&b, pfn, 0, 0);
    }
    assert_int_equal(run(file, finish(&b, "", file, sizeof(file)), &w, error, sizeof(error)), 0);
    mm_drain(&w.mm);
    assert_true(trial_compact(&w, 0, &compact));
    assert_int_equal(compact.faults, 0);
    assert_true(compact.free_huge_after > compact.free_huge_before);
    assert_int_equal(compact.migrated, compact.moves_least);
    assert_true(trial_huge(&w, HUGE_MIGRATE, &huge));
    assert_int_equal(huge.faults, 0);
    assert_int_equal(huge.got, huge.possible);
    assert_true(trial_offline(&w, offline));
    assert_int_equal(offline->faults, 0);
    assert_int_equal(offline->count, 1);
    assert_true(offline->block[0].core);
    assert_int_equal(world_check(&w), 0);       /* trials leave the world as it was */
    world_free(&w);
    free(offline);
}

/* A file that ends anywhere is refused; a changed byte is refused or replayed, and never more than that. */
static void test_damage(void **state)
{
    static uint8_t file[1 << 17], copy[1 << 17];
    struct builder b;
    struct world w;
    size_t bytes;
    char error[300];

    (void)state;
    history(&b);
    bytes = finish(&b, "", file, sizeof(file));
    for (size_t n = 0; n < bytes; n++) {
        assert_int_equal(run(file, n, &w, error, sizeof(error)), 1);
    }
    for (size_t at = 0; at < bytes; at++) {
        struct rng r = { test_seed(at) };

        memcpy(copy, file, bytes);
        copy[at] = (uint8_t)(copy[at] ^ (1u << rng_below(&r, 8)));
        if (run(copy, bytes, &w, error, sizeof(error)) == 0) {
            assert_int_equal(world_check(&w), 0);
            world_free(&w);
        }
    }
}

static void test_truncated_compression(void **state)
{
    static uint8_t file[1 << 17], packed[1 << 17];
    struct builder b;
    struct world w;
    size_t bytes, packed_bytes;
    char error[300];

    (void)state;
    history(&b);
    bytes = finish(&b, "", file, sizeof(file));
    packed_bytes = ZSTD_compress(packed, sizeof(packed), file, bytes, 3);
    assert_false(ZSTD_isError(packed_bytes));
    assert_int_equal(run(packed, packed_bytes, &w, error, sizeof(error)), 0);
    world_free(&w);
    for (size_t n = 0; n < packed_bytes; n += 3) {
        assert_int_equal(run(packed, n, &w, error, sizeof(error)), 1);
    }
    packed[packed_bytes / 2] ^= 0x55;
    if (run(packed, packed_bytes, &w, error, sizeof(error)) == 0) {
        world_free(&w);
    }
}

static void test_bad_headers(void **state)
{
    static uint8_t file[1 << 17];
    static const char *const changes[] = {      /* the later key wins */
        ",\"pfns\":0", ",\"pfns\":99999999999", ",\"pageblock_order\":8", ",\"init_alloc_runs\":[[0,5000]]", ",\"hole_runs\":[[5,-1]]",
        ",\"hole_runs\":[[50,10],[40,5]]", ",\"gfp_table\":[-1]", ",\"gfp_table\":7", ",\"zones\":[{}]", ",\"counts\":{\"alloc\":1}",
        ",\"gfp_table\":[]",
    };
    struct builder b;
    struct world w;
    char error[300];

    (void)state;
    history(&b);
    for (size_t i = 0; i < FS_ARRAY_SIZE(changes); i++) {
        assert_int_equal(run(file, finish(&b, changes[i], file, sizeof(file)), &w, error, sizeof(error)), 1);
    }
    b = (struct builder){ .at = 0 };
    put_alloc(&b, 1000, 0, 1);
    put_alloc(&b, 1000, 0, 1);                  /* twice */
    assert_int_equal(run(file, finish(&b, "", file, sizeof(file)), &w, error, sizeof(error)), 1);
    assert_non_null(strstr(error, "twice"));
}

static int cleanup(void **state)
{
    char path[64];

    (void)state;
    snprintf(path, sizeof(path), "/tmp/pagetrace-test-%d", (int)getpid());
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_trials),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_truncated_compression),
        cmocka_unit_test(test_bad_headers),
    };
    return cmocka_run_group_tests(tests, NULL, cleanup);
}
