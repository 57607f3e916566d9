/*
 * pv_moves.c - which frames of a PV guest a round moves, and the memory that says so.
 *
 * Owns: the bitmaps by pfn, the cursor over them, scratch memory, and taking all of it before the guest stops.
 * Invariants:
 *   I1  the i-th pfn that is set in job->moves goes to job->reserved[i], and reserved[] ascends: so the moves are also sorted by
 *       their new frames, which is all that the way back needs.
 *   I2  a move's old frame is its p2m entry as captured.
 *   I3  between the stop and the resume nothing is allocated that takes more than a bit a frame, but for the tables' list and
 *       the sums of --verify.
 * Lock order: none; a cursor and a part of the scratch memory are one thread's.
 * Why bits and not a list of moves: a list of pfn, old and new frame is 24 bytes a frame, and says nothing that the p2m (4 bytes a
 * frame), the reserve (4) and the translation (4) do not.
 * Cost: 2 bits a pfn; a cursor step is some ten instructions, no look-up; pv_cursor_at() counts bits from the start.
 */
#include "pv_job.h"

#include <string.h>

fs_status_t pv_machine_fits(const struct mover_ctx *ctx, struct fs_error *err)
{
    if (ctx->host.max_mfn > XLAT_FRAME_LIMIT) {
        return fs_fail(err, FS_UNSUPPORTED, "this machine has frames up to %#llx: PV guests are moved on machines of at most 16 TiB",
                       (unsigned long long)ctx->host.max_mfn);
    }
    return FS_OK;
}

fs_status_t pv_bitmaps(struct pv_job *job)
{
    uint64_t pfns = (uint64_t)job->p2m.page_count * P2M_ENTRIES_PER_PAGE;
    if (pfns > job->bitmap_pfns) {
        free(job->owned);
        free(job->moves);
        job->owned = bitmap_new(pfns);
        job->moves = bitmap_new(pfns);
        job->bitmap_pfns = job->owned == NULL || job->moves == NULL ? 0 : pfns;
        return job->bitmap_pfns == 0 ? FS_NO_MEMORY : FS_OK;
    }
    memset(job->owned, 0, (size_t)bitmap_words(pfns) * sizeof(*job->owned));
    memset(job->moves, 0, (size_t)bitmap_words(pfns) * sizeof(*job->moves));
    return FS_OK;
}

fs_status_t pv_prepare_scratch(struct pv_job *job)
{
    size_t bytes = (size_t)pv_parts(job->ctx) * PV_SCRATCH_BYTES;
    if (job->scratch == NULL) {
        job->scratch = malloc(bytes);
        if (job->scratch == NULL) {
            return FS_NO_MEMORY;
        }
        memset(job->scratch, 1, bytes);
    }
    return FS_OK;
}

fs_status_t pv_prepare(struct pv_job *job)
{
    fs_status_t s = pv_prepare_scratch(job);
    return s == FS_OK ? xlat_init(&job->x, job->ctx->ranges) : s;
}

struct pv_cursor pv_cursor_at(const struct pv_job *job, size_t index)
{
    struct pv_cursor c = { .words = bitmap_words(job->p2m.pfn_count), .index = index };
    size_t skip = index;
    for (; c.word < c.words; c.word++) {
        size_t here = (size_t)__builtin_popcountll(job->moves[c.word]);
        if (skip < here) {
            c.bits = job->moves[c.word];
            for (; skip > 0; skip--) {
                c.bits &= c.bits - 1;
            }
            break;
        }
        skip -= here;
    }
    return c;
}

void pv_index_new(struct pv_job *job)
{
    struct pv_cursor c = pv_cursor_at(job, 0);
    struct pv_move m;
    xlat_index_begin(&job->x, job->reserved);
    while (pv_cursor_next(job, &c, &m)) {
        xlat_index_add(&job->x, m.old);                         /* I1 */
    }
}
