/*
 * make_room.c - guests give memory, so that an evacuation has room.
 *
 * Owns: how much each guest is asked for, and giving it back.
 * Invariants:
 *   I1  a page that any guest gives counts once: outside of the range it is room, inside of it one frame less has to move.
 *   I2  if one guest does not give what was planned, all that was given before is given back, and nothing else has been changed.
 *   I3  what a guest had before stands in STATE_DIR/shrunk, so that a later `online --grow-back` knows.
 * Lock order: the journal's lock, for all guests together.
 * Why shares in proportion to what each can give: nobody is emptied while another one has plenty.
 * Cost: one question a guest; then that of its shrink.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal.h"
#include "shrink.h"

#define BLOCK_PAGES  512u
#define MARGIN_PAGES 512u               /* a little more than is missing: the machine itself allocates meanwhile */

static bool excluded(const struct hv_evacuate_options *o, uint16_t domid)
{
    for (size_t i = 0; i < o->exclude_count; i++) {
        if (o->exclude[i] == domid) {
            return true;
        }
    }
    return false;
}

static fs_status_t shrink_one(struct hv *hv, struct journal *j, uint16_t domid, uint64_t to_pages, bool grow, bool dry_run, struct hv_shrink_report *r,
                              struct fs_error *err)
{
    char who[8];
    struct hv_shrink_options o = { .guest = who, .to_pages = to_pages, .grow = grow, .dry_run = dry_run, .for_room = true };
    (void)snprintf(who, sizeof(who), "%u", domid);
    return shrink_run(hv, j, &o, r, err);
}

void room_ask(struct hv *hv, const struct survey *survey, const struct hv_evacuate_options *o, uint64_t missing_pages, struct room_plan *out)
{
    struct journal *j = NULL;
    struct fs_error words;
    uint64_t want = (missing_pages + MARGIN_PAGES + BLOCK_PAGES - 1) / BLOCK_PAGES, could = 0, left = want;
    *out = (struct room_plan){ .guests = calloc(survey->domain_count + 1, sizeof(*out->guests)) };
    if (out->guests == NULL || journal_open(hv_state_dir(hv), false, &j, &words) != FS_OK) {
        return;                         /* another tool asks them: no amounts then */
    }
    for (size_t i = 0; i < survey->domain_count; i++) {
        const struct hv_domain *d = &survey->domains[i];
        struct hv_shrink_report r;
        if (!d->coop || excluded(o, d->domid) || shrink_one(hv, j, d->domid, d->tot_pages, false, true, &r, &words) != FS_OK || !r.detailed) {
            continue;
        }
        struct room_guest g = { .domid = d->domid, .pages = d->tot_pages, .possible_pages = r.guest_possible_pages / BLOCK_PAGES * BLOCK_PAGES };
        (void)snprintf(g.name, sizeof(g.name), "%s", d->name);
        if (g.possible_pages > 0) {
            out->guests[out->count++] = g;
            could += g.possible_pages / BLOCK_PAGES;
        }
    }
    journal_close(j);
    out->possible_pages = could * BLOCK_PAGES;
    out->enough = could >= want;
    for (size_t i = 0; i < out->count; i++) {           /* in blocks; what rounding leaves over goes to who still can */
        struct room_guest *g = &out->guests[i];
        ASSERT_CMP(could, >, 0);                        /* who can give nothing is not listed */
        uint64_t blocks = out->enough ? want * (g->possible_pages / BLOCK_PAGES) / could : g->possible_pages / BLOCK_PAGES;
        g->give_pages = blocks * BLOCK_PAGES;
        left -= blocks < left ? blocks : left;
    }
    for (size_t i = 0; i < out->count && left > 0; i++) {
        uint64_t more = (out->guests[i].possible_pages - out->guests[i].give_pages) / BLOCK_PAGES;
        more = more < left ? more : left;
        out->guests[i].give_pages += more * BLOCK_PAGES;
        left -= more;
    }
}

void room_plan_free(struct room_plan *p)
{
    free(p->guests);
    *p = (struct room_plan){ 0 };
}

void room_plan_text(const struct room_plan *p, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < p->count && used < bytes; i++) {
        const struct room_guest *g = &p->guests[i];
        if (g->give_pages > 0) {
            int n = snprintf(out + used, bytes - used, "%s%.40s by %llu MiB", used > 0 ? ", " : "", g->name, (unsigned long long)(g->give_pages / 256));
            used += n > 0 ? (size_t)n : 0;
        }
    }
}

/* I2. What cannot be given back now stands in the state directory. */
void room_give_back(struct hv *hv, struct hv_shrink_report *list, size_t count)
{
    struct journal *j;
    struct fs_error words;
    if (count == 0 || journal_open(hv_state_dir(hv), false, &j, &words) != FS_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct hv_shrink_report r;
        if (list[i].pages_after < list[i].pages_before && shrink_one(hv, j, list[i].domid, list[i].pages_before, true, false, &r, &words) == FS_OK) {
            list[i].given_back_pages += r.pages_after - r.pages_before;
        }
    }
    journal_close(j);
}

fs_status_t room_make(struct hv *hv, const struct room_plan *p, struct hv_shrink_report **list, size_t *count, struct fs_error *err)
{
    struct journal *j;
    *count = 0;
    *list = calloc(p->count + 1, sizeof(**list));
    if (*list == NULL) {
        return FS_NO_MEMORY;
    }
    fs_status_t s = journal_open(hv_state_dir(hv), false, &j, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < p->count && s == FS_OK; i++) {
        const struct room_guest *g = &p->guests[i];
        if (g->give_pages == 0) {
            continue;
        }
        struct fs_error words = { "" };
        s = shrink_one(hv, j, g->domid, g->pages - g->give_pages, false, false, &(*list)[*count], &words);
        (*count)++;
        if (s != FS_OK && s != FS_INTERRUPTED && s != FS_NEEDS_RECOVER) {
            s = fs_fail(err, FS_NO_ROOM, "%.60s did not give %llu MiB (%.200s)", g->name, (unsigned long long)(g->give_pages / 256), words.text);
        } else if (s != FS_OK) {
            s = fs_fail(err, s, "%s", words.text);
        }
    }
    journal_close(j);
    if (s != FS_OK && s != FS_NEEDS_RECOVER) {
        room_give_back(hv, *list, *count);
    }
    return s;
}

fs_status_t hv_grow_back(struct hv *hv, struct hv_shrink_report **list, size_t *count, struct fs_error *err)
{
    struct hv_domain *domains = NULL;
    size_t domain_count = 0;
    struct journal *j = NULL;
    *list = NULL;
    *count = 0;
    fs_status_t worst = FS_OK, s = journal_open(hv_state_dir(hv), false, &j, err);
    if (s == FS_OK) {
        s = hv->be->ops->domains(hv->be, &domains, &domain_count, err);
    }
    *list = calloc(domain_count + 1, sizeof(**list));
    if (s == FS_OK && *list == NULL) {
        s = FS_NO_MEMORY;
    }
    for (size_t i = 0; i < domain_count && s == FS_OK; i++) {
        struct shrunk was;
        struct fs_error words = { "" };
        s = shrunk_find(hv_state_dir(hv), &domains[i], &was, err);
        if (s != FS_OK || was.back_pages <= domains[i].tot_pages) {
            continue;
        }
        fs_status_t one = shrink_one(hv, j, domains[i].domid, was.back_pages, true, false, &(*list)[*count], &words);
        (*count)++;
        if (one != FS_OK && worst == FS_OK) {
            worst = fs_fail(err, one, "%s", words.text);
        }
        s = one == FS_INTERRUPTED || one == FS_NEEDS_RECOVER ? one : FS_OK;
    }
    free(domains);
    if (j != NULL) {
        journal_close(j);
    }
    return s != FS_OK ? s : worst;
}
