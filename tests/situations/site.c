/*
 * site.c - what every site has: randomness, the background, counts.
 *
 * Owns: nothing.
 * Invariants: I1  one seed decides everything that a site does.
 * Lock order: none; one thread.
 * Why: situations must be repeatable to the page, so the background runs when it is told to, not when a host's scheduler likes.
 * Cost: none to speak of.
 */
#include "site.h"
#include "../../guest/mm/reclaim.h"

uint64_t site_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;    /* the finalizer of splitmix64, public domain */
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t site_random(struct site *s, uint64_t n)
{
    s->random += 0x9e3779b97f4a7c15ull;
    return site_mix(s->random) % n;
}

void site_any_cpu(struct site *s)
{
    s->become(s, (unsigned)site_random(s, s->cpus));
}

uint64_t site_background(struct site *s)
{
    uint64_t pages = 0;

    for (uint32_t i = 0; i < s->mm->zone_count; i++) {
        struct zone *z = &s->mm->zones[i];

        pages += reclaim_background(s->vm, z);
        pages += s->config.alike || s->config.lumpy ? 0 : compaction_background(s->mm, z);
    }
    return pages;
}

void site_counts(const struct site *s, struct site_counts *out)
{
    for (unsigned c = 0; c < ZONE_COUNTERS; c++) {
        out->zone[c] = mm_counter(s->mm, (enum zone_counter)c);
    }
    for (unsigned c = 0; c < LRU_COUNTERS; c++) {
        out->lru[c] = lru_counter(s->lru, (enum lru_counter)c);
    }
    for (unsigned c = 0; c < VM_COUNTERS; c++) {
        out->vm[c] = vm_counter(s->vm, (enum vm_counter)c);
    }
}

void site_counts_since(const struct site *s, const struct site_counts *before, struct site_counts *out)
{
    site_counts(s, out);
    for (unsigned c = 0; c < ZONE_COUNTERS; c++) {
        out->zone[c] -= before->zone[c];
    }
    for (unsigned c = 0; c < LRU_COUNTERS; c++) {
        out->lru[c] -= before->lru[c];
    }
    for (unsigned c = 0; c < VM_COUNTERS; c++) {
        out->vm[c] -= before->vm[c];
    }
}

uint64_t counts_reclaimed(const struct site_counts *c)
{
    return c->lru[LC_pgsteal_kswapd] + c->lru[LC_pgsteal_direct] + c->lru[LC_pgsteal_lumpy] + c->lru[LC_slab_reclaimed];
}

void series_add(struct series *s, double x)
{
    double d = x - s->mean;

    s->n++;
    s->mean += d / (double)s->n;
    s->m2 += d * (x - s->mean);
    s->max = x > s->max ? x : s->max;
}

double series_deviation(const struct series *s)
{
    double v = s->n > 1 ? s->m2 / (double)(s->n - 1) : 0, r = v > 1 ? v : 1;

    if (v <= 0) {
        return 0;
    }
    for (unsigned i = 0; i < 60; i++) {             /* Newton: no libm for one root */
        r = (r + v / r) / 2;
    }
    return r;
}
