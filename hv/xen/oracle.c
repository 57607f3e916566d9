/*
 * oracle.c - what Xen itself reads from a guest's shared pages.
 *
 * Owns: vcpu_upcall_state() and evtchn_state(): the parsers of debug keys 'q' and 'e'.
 * Invariants:
 *  I1  a state is given as valid only if its line stands in the section of the asked domain,
 *      with the numbers in their places; a line torn by another CPU's output is not valid.
 *  I2  the section itself must be complete: its header is there and what follows it (the next
 *      section, or the end of the key's text) as well; else FS_UNSUPPORTED.
 *  I3  a guest cannot put a line there: only Xen's own lines reach this file (console.c).
 * What key 'q' also does: it raises VIRQ_DEBUG in every vCPU of every domain.  Linux 6.1 binds
 * it only with two-level event channels, and then prints its state; nothing else.
 * Cost: the text of all domains, about 300 bytes a vCPU and 40 a port, over the
 * serial console: tens of milliseconds to a second.
 */
#include "xen_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The text after the line that starts with head and domid; NULL if there is none. Cuts it before next. */
static char *section(char *text, const char *head, uint16_t domid, const char *next)
{
    char wanted[80];
    snprintf(wanted, sizeof wanted, "%s%u:\n", head, domid);
    char *p = strstr(text, wanted);
    if (!p) {
        return NULL;
    }
    p += strlen(wanted);
    char *end = strstr(p, next);
    if (end) {
        *end = '\0';
    }
    return p;
}

fs_status_t xen_vcpu_upcall_state(struct hv_backend *be, uint16_t domid, uint8_t *out, size_t count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    char *text = NULL;
    memset(out, 0, count);
    fs_status_t s = xen_debug_key(x, 'q', &text, err);
    if (s != FS_OK) {
        return s;
    }
    /* The text ends with one notification for each vCPU: their presence shows that no section is cut off. */
    bool whole = strstr(text, "Notifying guest ") != NULL;
    char *p = section(text, "VCPU information and callbacks for domain ", domid, "General information for domain ");
    if (!p || !whole) {
        s = fs_fail(err, FS_UNSUPPORTED, "Xen's console does not tell the vCPU states of domain %u", domid);
        goto out;
    }
    char *save = NULL;
    for (char *line = strtok_r(p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned vcpu, pend, mask;
        const char *at = strstr(line, "VCPU");
        if (!at || sscanf(at, "VCPU%u: CPU%*u [has=%*c] poll=%*u upcall_pend=%2x upcall_mask=%2x ", &vcpu, &pend, &mask) != 3 ||
            vcpu >= count) {
            continue;
        }
        out[vcpu] = (uint8_t)((pend ? 1u : 0u) | (mask ? 2u : 0u) | 0x80u);
    }
out:
    free(text);
    return s;
}

/* From "[p/m/" on: a FIFO port's link state follows ("?" where the guest gave no array page), a two-level port has none;
 * then "]: s=" and the channel's state. */
static unsigned port_kind(const char *at)
{
    unsigned kind = 0, state;
    if (at[5] != ']' && at[5] != '?') {
        kind |= 0x04u;
    }
    const char *s = strstr(at, "]: s=");
    if (s && sscanf(s, "]: s=%1u", &state) == 1 && state <= 7) {
        kind |= state << 4;
    }
    return kind;
}

fs_status_t xen_evtchn_state(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    char *text = NULL;
    memset(state, 0, count);
    *ports = 0;
    fs_status_t s = xen_debug_key(x, 'e', &text, err);
    if (s != FS_OK) {
        return s;
    }
    char *p = section(text, "Event channel information for domain ", domid, "Event channel information for domain ");
    if (!p) {
        s = fs_fail(err, FS_UNSUPPORTED, "Xen's console does not tell the event channels of domain %u", domid);
        goto out;
    }
    char *save = NULL;
    for (char *line = strtok_r(p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned port, pending, masked;
        const char *at = strchr(line, '[');
        /* The line may begin with a time stamp in brackets; the port's own bracket is the one with slashes. */
        while (at && (at == line || sscanf(at, "[%1u/%1u/", &pending, &masked) != 2)) {
            at = strchr(at + 1, '[');
        }
        if (!at) {
            continue;
        }
        const char *digits = at;
        while (digits > line && (digits[-1] == ' ')) {
            digits--;
        }
        while (digits > line && digits[-1] >= '0' && digits[-1] <= '9') {
            digits--;
        }
        if (sscanf(digits, "%u [%1u/%1u/", &port, &pending, &masked) != 3 || port == 0 || pending > 1 || masked > 1) {
            continue;
        }
        *ports = port + 1 > *ports ? port + 1 : *ports;
        if (port < count) {
            state[port] = (uint8_t)(pending | masked << 1 | port_kind(at) | 0x80u);
        }
    }
out:
    free(text);
    return s;
}
