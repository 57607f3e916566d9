/*
 * fake_hap_check.c - what the fake machine and its guest are like after a test.
 *
 * Owns: nothing; it looks at all of S.
 * Invariants: those of fake_hap.c, I1 to I3; the first that does not hold is told in words.
 */
#include "fake_hap_priv.h"

#include <stdarg.h>
#include <stdio.h>

struct fake_result fake_hap_result(void)
{
    struct fake_result r = { .calls = S->calls, .pauses_left = (uint64_t)S->pauses, .max_pages = S->max_pages,
                             .tot_pages = S->tot_pages, .unscrubbed = S->unscrubbed };

    for (uint32_t i = FAKE_GFNS; i < FAKE_GFNS + FAKE_WINDOW_GFNS; i++) {
        r.scratch_left += S->p2m[i] != NONE;
    }
    for (uint64_t m = FAKE_RANGE.start.n; m < FAKE_RANGE.end.n; m++) {
        r.in_range_left += S->frames[m].owned;
        r.offlined += S->frames[m].offlined;
    }
    return r;
}

static const char *wrong(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(S->words, sizeof(S->words), fmt, ap);
    va_end(ap);
    return S->words;
}

const char *fake_hap_check(void)
{
    uint64_t owned = 0;

    for (uint32_t slot = 0; slot < FAKE_GFNS; slot++) {
        uint32_t mfn = S->p2m[slot];

        if (S->kind[slot] == EMPTY) {
            continue;
        }
        if (mfn == NONE) {
            return wrong("gfn %u is lost", slot);
        }
        if (S->held_mfn[slot] != NONE && S->held_mfn[slot] != mfn) {
            return wrong("gfn %u: Xen holds frame %u, the guest sees frame %u", slot, S->held_mfn[slot], mfn);
        }
        if (S->kind[slot] != DATA) {
            continue;
        }
        const uint64_t *w = (const uint64_t *)(const void *)fake_bytes(mfn);
        for (unsigned i = 0; i < 512; i++) {
            if (w[i] != fake_word(slot, S->version[slot], i)) {
                return wrong("gfn %u, frame %u: word %u of version %u is wrong", slot, mfn, i, S->version[slot]);
            }
        }
    }
    for (uint32_t m = 0; m < FAKE_FRAMES; m++) {        /* I1 */
        const struct fake_frame *f = &S->frames[m];

        owned += f->owned;
        if (f->gfn != NONE && (S->p2m[f->gfn] != m || !f->owned)) {
            return wrong("frame %u: p2m and M2P disagree", m);
        }
        if (f->owned && f->gfn == NONE) {
            return wrong("frame %u is owned and under no gfn: leaked", m);
        }
        if (f->owned && f->maps) {
            return wrong("frame %u is still mapped", m);
        }
    }
    return owned == S->tot_pages ? NULL : wrong("%llu pages owned, %llu counted", (unsigned long long)owned,
                                                (unsigned long long)S->tot_pages);
}

bool fake_hap_is_held(uint64_t gfn) { return gfn < FAKE_GFNS && S->held_mfn[gfn] != NONE; }
bool fake_hap_gone(void) { return S->dying; }
