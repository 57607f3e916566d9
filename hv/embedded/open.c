/*
 * open.c - hv_embedded_open(): the default machine of `--machine embedded`.
 *
 * Owns: the text that describes a machine, and the default one.
 * The description is a list of words: "nodes=COUNTxMIB", "pcpus=N", "seed=N", and one
 * "pv=NAME,MIB,VCPUS,NODE", "hap=..." or "coop=..." for each guest, "dom0=MIB,NODE" for
 * the control domain.  NULL stands for DEFAULT_SPEC, and DEFAULT_COOP where the program has a kernel.
 * Invariants: I1 a word that is not understood is FS_USAGE and named; nothing is guessed;
 * I2 guests that run a kernel end before the machine does.
 * A coop guest takes a step wherever the engine waits for it (core.h), so a run is the same run every time.
 * Why text: a user can drill the shape of his own host without writing C.
 * The machine lives as long as the backend: closing it ends both.
 * Cost: building writes every page of every guest once.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core.h"
#include "emb_backend.h"

#define DEFAULT_SPEC "nodes=4x128 dom0=64,0 pv=pv1,48,1,1 pv=pv2,32,2,1 hap=pvh1,40,2,1"
#define DEFAULT_COOP "coop=coop1,32,1,2"

struct parsed {
    struct emb_config machine;
    struct emb_domain_config domains[EMB_DOMAINS_MAX];
    bool runs_kernel[EMB_DOMAINS_MAX];
    uint32_t domain_count;
};

static fs_status_t bad_word(const char *word, struct fs_error *err)
{
    return fs_fail(err, FS_USAGE, "embedded machine: \"%s\" is not understood; known are nodes=COUNTxMIB, pcpus=N, seed=N, dom0=MIB,NODE, "
                                  "pv=NAME,MIB,VCPUS,NODE, hap=NAME,MIB,VCPUS,NODE and coop=NAME,MIB,VCPUS,NODE", word);
}

static bool parse_guest(const char *text, enum hv_domain_kind kind, struct emb_domain_config *c)
{
    unsigned long mib = 0, vcpus = 1, node = 0;
    int end = 0;
    *c = (struct emb_domain_config){ .kind = kind };
    bool ok = kind == HV_DOMAIN_CONTROL ? sscanf(text, "%lu,%lu%n", &mib, &node, &end) == 2
                                        : sscanf(text, "%63[^,],%lu,%lu,%lu%n", c->name, &mib, &vcpus, &node, &end) == 4;
    if (kind == HV_DOMAIN_CONTROL) {
        (void)snprintf(c->name, sizeof(c->name), "Domain-0");
    } else {
        c->grants_mapped = 2;
    }
    c->pages = (uint64_t)mib * 256;
    c->vcpus = (uint32_t)vcpus;
    c->node = (uint32_t)node;
    return ok && text[end] == '\0' && mib > 0 && mib < (1u << 22) && vcpus > 0 && vcpus <= EMB_VCPUS_MAX && node < EMB_NODES_MAX;
}

static bool parse_nodes(const char *text, struct emb_config *c)
{
    unsigned long count = 0, mib = 0;
    int end = 0;
    if (sscanf(text, "%lux%lu%n", &count, &mib, &end) != 2 || text[end] != '\0' || count == 0 || count > EMB_NODES_MAX || mib == 0 || mib > (1u << 22)) {
        return false;
    }
    c->node_count = (uint32_t)count;
    for (uint32_t i = 0; i < c->node_count; i++) {
        c->nodes[i] = (struct emb_node_config){ .pages = (uint64_t)mib * 256 };
    }
    return true;
}

static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return errno == 0 && end != text && *end == '\0' && text[0] != '-' && *out > 0 && *out <= max;
}

static fs_status_t parse_word(const char *word, struct parsed *p, struct fs_error *err)
{
    uint64_t n;
    struct emb_domain_config c;
    if (strncmp(word, "nodes=", 6) == 0 && parse_nodes(word + 6, &p->machine)) {
        return FS_OK;
    }
    if (strncmp(word, "pcpus=", 6) == 0 && parse_number(word + 6, 4096, &n)) {
        p->machine.pcpus = (uint32_t)n;
        return FS_OK;
    }
    if (strncmp(word, "seed=", 5) == 0 && parse_number(word + 5, UINT64_MAX, &n)) {
        p->machine.seed = n;
        return FS_OK;
    }
    bool coop = strncmp(word, "coop=", 5) == 0;
    bool guest = (coop && parse_guest(word + 5, HV_DOMAIN_PV, &c)) ||
                 (strncmp(word, "dom0=", 5) == 0 && parse_guest(word + 5, HV_DOMAIN_CONTROL, &c)) ||
                 (strncmp(word, "pv=", 3) == 0 && parse_guest(word + 3, HV_DOMAIN_PV, &c)) ||
                 (strncmp(word, "hap=", 4) == 0 && parse_guest(word + 4, HV_DOMAIN_HAP, &c));
    if (!guest || p->domain_count == EMB_DOMAINS_MAX) {
        return bad_word(word, err);
    }
    p->runs_kernel[p->domain_count] = coop;
    p->domains[p->domain_count++] = c;
    return FS_OK;
}

/* What no word can tell by itself: nodes may come last. */
static fs_status_t check_domains(const struct parsed *p, struct fs_error *err)
{
    for (uint32_t i = 0; i < p->domain_count; i++) {
        const struct emb_domain_config *c = &p->domains[i];
        if (c->node >= p->machine.node_count) {
            return fs_fail(err, FS_USAGE, "embedded machine: domain \"%s\" is to have its memory on node %u, and the machine has nodes 0 to %u; "
                           "choose one of them, or say nodes=COUNTxMIB with more", c->name, c->node, p->machine.node_count - 1);
        }
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(p->domains[k].name, c->name) == 0) {
                return fs_fail(err, FS_USAGE, "embedded machine: two domains are named \"%s\"; give each its own name", c->name);
            }
        }
    }
    return FS_OK;
}

static fs_status_t parse(const char *spec, struct parsed *p, struct fs_error *err)
{
    char *copy = strdup(spec), *save = NULL;
    fs_status_t s = copy ? FS_OK : fs_fail(err, FS_NO_MEMORY, "embedded machine: no memory");
    *p = (struct parsed){ .machine = { .seed = 1, .anon_pages = 16 } };
    for (char *w = copy ? strtok_r(copy, " ", &save) : NULL; s == FS_OK && w; w = strtok_r(NULL, " ", &save)) {
        s = parse_word(w, p, err);
    }
    if (s == FS_OK && p->machine.node_count == 0) {
        s = fs_fail(err, FS_USAGE, "embedded machine: nodes=COUNTxMIB is missing: add it, as nodes=4x128");
    }
    free(copy);
    return s == FS_OK ? check_domains(p, err) : s;
}

static fs_status_t build_kernel(struct emb_machine *m, const struct emb_domain_config *d, const struct emb_kernel_ops *kernel, void **out,
                                struct fs_error *err)
{
    struct emb_kernel_config c = { .pages = d->pages, .seed = d->seed, .vcpus = d->vcpus, .node = d->node };
    memcpy(c.name, d->name, sizeof(c.name));
    if (kernel == NULL) {
        return fs_fail(err, FS_UNSUPPORTED, "embedded machine: this program has no kernel for guest \"%s\"", d->name);
    }
    if (d->pages < kernel->least_pages) {
        return fs_fail(err, FS_USAGE, "embedded machine: guest \"%s\" needs %llu MiB or more", d->name, (unsigned long long)(kernel->least_pages / 256));
    }
    int rc = kernel->create(m, &c, out);
    return rc == 0 ? FS_OK : fs_fail(err, rc == -ENOMEM ? FS_NO_ROOM : FS_USAGE, "embedded machine: guest \"%s\" does not boot: %s; give it more memory, "
                                     "or the machine larger DIMMs (nodes=)", d->name, strerror(-rc));
}

static fs_status_t build_domain(struct emb_machine *m, const struct emb_domain_config *d, struct fs_error *err)
{
    uint16_t domid;
    int rc = emb_domain_create(m, d, &domid);
    return rc == 0 ? FS_OK : fs_fail(err, rc == -ENOMEM ? FS_NO_ROOM : FS_USAGE, "embedded machine: domain \"%s\" of %llu MiB cannot be built: %s; "
                                     "give it other memory (1 MiB to what its node holds), or the machine larger DIMMs (nodes=)", d->name,
                                     (unsigned long long)d->pages / 256, strerror(-rc));
}

static fs_status_t build_all(struct emb_be *e, struct parsed *p, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (uint32_t i = 0; s == FS_OK && i < p->domain_count; i++) {
        p->domains[i].seed = p->machine.seed * 1000 + i;
        if (!p->runs_kernel[i]) {
            s = build_domain(e->m, &p->domains[i], err);
            continue;
        }
        s = build_kernel(e->m, &p->domains[i], e->kernel, &e->kernels[e->kernel_count], err);
        e->kernel_count += s == FS_OK;
    }
    return s;
}

fs_status_t hv_embedded_open(const char *spec, const struct emb_kernel_ops *kernel, struct hv_backend **out, struct fs_error *err)
{
    struct parsed p;
    *out = NULL;
    fs_status_t s = parse(spec ? spec : kernel ? DEFAULT_SPEC " " DEFAULT_COOP : DEFAULT_SPEC, &p, err);
    if (s != FS_OK) {
        return s;
    }
    struct emb_machine *m = emb_machine_create(&p.machine);
    if (!m) {
        return fs_fail(err, FS_NO_MEMORY, "embedded machine: cannot be created: %s", strerror(errno));
    }
    struct hv_backend *be = emb_backend_owning(m);
    if (!be) {
        emb_machine_destroy(m);
        return fs_fail(err, FS_NO_MEMORY, "embedded machine: no handle");
    }
    emb_be(be)->kernel = kernel;
    s = build_all(emb_be(be), &p, err);
    if (s != FS_OK) {
        be->ops->close(be);                 /* I2 */
        return s;
    }
    *out = be;
    return FS_OK;
}
