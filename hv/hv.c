/*
 * hv.c - struct hv, and the small verbs.
 *
 * Owns: struct hv; hv_open_backend, hv_close, hv_topology, hv_status, hv_online, hv_version.
 * Invariants:
 *   I1  every operation table is checked when it is bound (hv_backend_check).
 *   I2  nothing here changes the machine but hv_online().
 * Lock order: one thread per struct hv; hv_interrupt() may come from a signal handler.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hv_priv.h"
#include "journal.h"
#include "range.h"
#include "topology.h"

#define DEFAULT_STATE_DIR "/var/lib/frameshift"
#define MAP_FILE_LIMIT (1u << 20)

const char *hv_state_dir(const struct hv *hv)
{
    return hv->state_dir != NULL ? hv->state_dir : DEFAULT_STATE_DIR;
}

const struct mover_ops *hv_mover_ops(enum hv_mover m)
{
    switch (m) {
    case HV_MOVER_PV:  return &mover_pv;
    case HV_MOVER_HAP: return &mover_hap;
    case HV_MOVER_COOP: return &mover_coop;
    default:           return NULL;
    }
}

fs_status_t hv_open_backend(const struct hv_config *config, struct hv_backend *be, struct hv **out)
{
    struct hv *hv = calloc(1, sizeof(*hv));
    *out = NULL;
    if (hv == NULL) {
        return FS_NO_MEMORY;
    }
    hv->config = *config;
    hv->map_file = config->map_file != NULL ? strdup(config->map_file) : NULL;
    hv->state_dir = config->state_dir != NULL ? strdup(config->state_dir) : NULL;
    if ((config->map_file != NULL && hv->map_file == NULL) || (config->state_dir != NULL && hv->state_dir == NULL)) {
        hv_close(hv);
        return FS_NO_MEMORY;
    }
    hv_backend_check(be->ops);                              /* I1 */
    hv->be = be;
    *out = hv;
    return FS_OK;
}

void hv_close(struct hv *hv)
{
    if (hv == NULL) {
        return;
    }
    if (hv->be != NULL) {
        hv->be->ops->close(hv->be);
    }
    free(hv->map_file);
    free(hv->state_dir);
    free(hv);
}

void hv_interrupt(struct hv *hv)
{
    hv->interrupted = 1;
}

fs_status_t hv_version(struct hv *hv, char *out, size_t bytes, struct fs_error *err)
{
    struct hv_host host;
    fs_status_t s = hv->be->ops->host(hv->be, &host, err);
    if (s == FS_OK) {
        snprintf(out, bytes, "%s %s", hv->be->ops->name, host.version_text);
    }
    return s;
}

fs_status_t hv_domain_find(struct hv *hv, const char *who, uint16_t *domid, struct fs_error *err)
{
    struct hv_domain *list = NULL;
    size_t count = 0;
    fs_status_t s = hv->be->ops->domains(hv->be, &list, &count, err);
    if (s != FS_OK) {
        return s;
    }
    char *end;
    char names[300] = "";
    errno = 0;
    unsigned long number = strtoul(who, &end, 10);
    bool numeric = isdigit((unsigned char)who[0]) && *end == '\0' && errno == 0;
    s = FS_NOT_FOUND;
    for (size_t i = 0; i < count && s != FS_OK; i++) {
        if ((numeric && list[i].domid == number) || strcmp(list[i].name, who) == 0) {
            *domid = list[i].domid;
            s = FS_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof(names) - used, "%s%s (%u)", i > 0 ? ", " : "", list[i].name, list[i].domid);
    }
    free(list);
    return s == FS_OK ? s : fs_fail(err, s, "no domain \"%.60s\"; there are: %s", who, names);
}

/* ---- topology --------------------------------------------------------------------- */

static fs_status_t read_file(const char *path, char **out, size_t *bytes, struct fs_error *err)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        return fs_fail(err, errno == ENOENT ? FS_NOT_FOUND : FS_IO, "map file %s: %s", path, strerror(errno));
    }
    *out = malloc(MAP_FILE_LIMIT + 1);
    *bytes = *out == NULL ? 0 : fread(*out, 1, MAP_FILE_LIMIT + 1, f);
    fs_status_t s = *out == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK && ferror(f)) {
        s = fs_fail(err, FS_IO, "map file %s: %s", path, strerror(errno));
    } else if (s == FS_OK && *bytes > MAP_FILE_LIMIT) {
        s = fs_fail(err, FS_BAD_INPUT, "map file %s is larger than 1 MiB", path);
    }
    fclose(f);
    if (s != FS_OK) {
        free(*out);
        *out = NULL;
    }
    return s;
}

fs_status_t hv_topology(struct hv *hv, struct hv_topology *out, struct fs_error *err)
{
    struct hv_host host;
    struct mfn_range_set ram = { 0 };
    uint8_t *smbios = NULL, *srat = NULL;
    size_t smbios_bytes = 0, srat_bytes = 0;
    char *map = NULL;
    memset(out, 0, sizeof(*out));
    fs_status_t s = hv->be->ops->host(hv->be, &host, err);
    if (s == FS_OK) {
        s = hv->be->ops->ram(hv->be, &ram, err);
    }
    if (s != FS_OK) {
        goto out;
    }
    struct fs_error none;                                   /* a machine without a table is no error: the other one serves */
    if (hv->be->ops->table(hv->be, HV_TABLE_SRAT, &srat, &srat_bytes, &none) != FS_OK) {
        srat_bytes = 0;
    }
    if (hv->map_file != NULL) {
        size_t bytes = 0;
        s = read_file(hv->map_file, &map, &bytes, err);
        if (s == FS_OK) {
            s = topology_from_map(map, bytes, hv->map_file, &ram, &host, out, err);
        }
        if (s == FS_OK) {
            s = topology_add_nodes(out, srat, srat_bytes, &host, err);
        }
        goto out;
    }
    if (hv->be->ops->table(hv->be, HV_TABLE_SMBIOS, &smbios, &smbios_bytes, &none) != FS_OK) {
        smbios_bytes = 0;
    }
    s = topology_from_tables(smbios, smbios_bytes, srat, srat_bytes, &ram, &host, out, err);
out:
    free(map);
    free(smbios);
    free(srat);
    mfn_set_free(&ram);
    return s;
}

/* ---- status ------------------------------------------------------------------------- */

#define CELLS FS_ARRAY_SIZE(((struct hv_dimm_status *)0)->map)

struct tally {
    struct hv_dimm_status *d;
    uint64_t seen;
    uint64_t cells[CELLS][HV_CELL_MIXED];
};

static fs_status_t tally_chunk(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct tally *t = arg;
    (void)start;
    (void)err;
    for (size_t i = 0; i < count; i++, t->seen++) {
        enum hv_map_cell cell = HV_CELL_GUEST;
        t->d->pending += (frames[i].flags & HV_FRAME_PENDING) != 0;
        switch (frames[i].owner) {
        case HV_FRAME_HOLE:     cell = HV_CELL_HOLE; break;
        case HV_FRAME_UNOWNED:  t->d->free_or_xen++; cell = HV_CELL_FREE; break;
        case HV_FRAME_OFFLINED: t->d->offlined++; cell = HV_CELL_OFFLINED; break;
        case HV_FRAME_BROKEN:   t->d->broken++; cell = HV_CELL_OFFLINED; break;
        case HV_FRAME_DOMAIN:
            if (frames[i].domid == 0) {
                t->d->dom0++;
                cell = HV_CELL_DOM0;
                break;
            }
            t->d->guests++;
            break;
        default:                t->d->guests++; break;
        }
        t->cells[t->seen * CELLS / t->d->total][cell]++;
    }
    return FS_OK;
}

static void draw_map(struct tally *t)
{
    for (size_t i = 0; i < CELLS; i++) {
        uint64_t sum = 0, most = 0;
        uint8_t which = HV_CELL_HOLE;
        for (unsigned c = 0; c < HV_CELL_MIXED; c++) {
            sum += t->cells[i][c];
            if (t->cells[i][c] > most) {
                most = t->cells[i][c];
                which = (uint8_t)c;
            }
        }
        t->d->map[i] = most * 4 >= sum * 3 || sum == 0 ? which : HV_CELL_MIXED;     /* three quarters make a colour */
    }
}

static fs_status_t status_dimm(struct hv *hv, const struct hv_host *host, const struct hv_dimm *dimm, struct hv_dimm_status *out,
                               struct fs_error *err)
{
    struct tally *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return FS_NO_MEMORY;
    }
    t->d = out;
    snprintf(out->name, sizeof(out->name), "%s", dimm->name);
    out->total = mfn_set_pages(&dimm->ranges);
    out->free_pages = UINT64_MAX;
    fs_status_t s = survey_frames(hv->be, &dimm->ranges, tally_chunk, t, err);
    draw_map(t);
    for (uint32_t i = 0; i < host->node_count; i++) {       /* the machine counts what only it can tell: free from Xen's own */
        const struct hv_node *n = &host->nodes[i];
        if (n->id == dimm->node && out->total + out->total / 16 >= n->total_pages) {
            out->free_pages = n->free_pages;
        }
    }
    free(t);
    return s;
}

fs_status_t hv_status(struct hv *hv, struct hv_status_report *out, struct fs_error *err)
{
    struct hv_topology topology;
    struct hv_host host;
    memset(out, 0, sizeof(*out));
    fs_status_t s = hv_topology(hv, &topology, err);
    if (s != FS_OK) {
        return s;
    }
    s = hv->be->ops->host(hv->be, &host, err);
    out->dimms = calloc(topology.count + 1, sizeof(*out->dimms));
    if (s == FS_OK && out->dimms == NULL) {
        s = FS_NO_MEMORY;
    }
    for (size_t i = 0; i < topology.count && s == FS_OK; i++) {
        s = status_dimm(hv, &host, &topology.dimms[i], &out->dimms[i], err);
        out->count = i + 1;
    }
    if (s == FS_OK) {
        out->host_total_pages = host.total_pages;
        out->host_free_pages = host.free_pages;
        out->pcpus = host.pcpus;
        snprintf(out->version, sizeof(out->version), "%.*s", (int)sizeof(out->version) - 1, host.version_text);
        out->recovery_due = journal_pending(hv_state_dir(hv));
    }
    hv_topology_free(&topology);
    if (s != FS_OK) {
        hv_status_free(out);
    }
    return s;
}

void hv_status_free(struct hv_status_report *s)
{
    free(s->dimms);
    memset(s, 0, sizeof(*s));
}

/* ---- online --------------------------------------------------------------------------- */

fs_status_t hv_online(struct hv *hv, const char *target, uint64_t *onlined_pages, struct fs_error *err)
{
    struct survey survey;
    struct journal *journal = NULL;
    *onlined_pages = 0;
    fs_status_t s = survey_target(hv, target, &survey, err);
    if (s != FS_OK) {
        return s;
    }
    s = journal_open(hv_state_dir(hv), false, &journal, err);       /* for its lock: no evacuation may run meanwhile */
    for (size_t i = 0; i < survey.ranges.count && s == FS_OK; i++) {
        uint64_t pages = 0;
        s = hv->be->ops->mark_online(hv->be, survey.ranges.ranges[i], &pages, err);
        *onlined_pages += pages;
    }
    if (journal != NULL) {
        journal_close(journal);
    }
    survey_free(&survey);
    return s;
}
