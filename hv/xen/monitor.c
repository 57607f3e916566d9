/*
 * monitor.c - the process that `xl create` leaves behind for each domain.
 *
 * Owns: monitor_hold(), monitor_release().
 * That process waits for the domain's end, to act on on_reboot, on_crash and so on.
 * xenstored tells it of a suspend, and it takes that for an end: it exits, and the later
 * reboot of the guest is handled by nobody.  Stopped meanwhile (SIGSTOP), it looks only
 * after the guest has been resumed, asks Xen for the domain's state and sees it running.
 * Invariants:
 *  I1  only a process whose program is xl and whose output is that domain's log is stopped.
 *      (The log of a guest that came here by migration keeps the name it had on arrival.)
 *  I2  release needs no memory of hold: it continues every such process that is
 *      stopped; so it works after a crash as well.
 * Cost: one pass over /proc.
 */
#include "xen_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool link_ends_with(const char *path, const char *tail)
{
    char target[4096];
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0) {
        return false;
    }
    target[n] = '\0';
    size_t len = (size_t)n, want = strlen(tail);
    static const char gone[] = " (deleted)";            /* a rotated log, an upgraded xl */
    if (len > sizeof gone - 1 && strcmp(target + len - (sizeof gone - 1), gone) == 0) {
        len -= sizeof gone - 1;
    }
    return len >= want && memcmp(target + len - want, tail, want) == 0;
}

static bool is_xl(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    return link_ends_with(path, "/xl");
}

static bool has_log_open(pid_t pid, const char *name)
{
    char path[64], tail[2][128];
    snprintf(tail[0], sizeof tail[0], "/xl-%s.log", name);
    snprintf(tail[1], sizeof tail[1], "/xl-%s--incoming.log", name);
    for (int fd = 0; fd <= 2; fd++) {
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        if (link_ends_with(path, tail[0]) || link_ends_with(path, tail[1])) {
            return true;
        }
    }
    return false;
}

static bool is_monitor(pid_t pid, const char *name)
{
    return is_xl(pid) && has_log_open(pid, name);
}

/* 'T' stopped, 'S' sleeping, ...; 0 unknown. */
static char state_of(pid_t pid)
{
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) {
        return 0;
    }
    text[n] = '\0';
    const char *p = strrchr(text, ')');                 /* the name before it may hold anything */
    return p && p[1] == ' ' ? p[2] : 0;
}

static fs_status_t for_each_monitor(struct hv_backend *be, uint16_t domid, int signal, uint32_t *touched, struct fs_error *err)
{
    struct hv_domain dom;
    *touched = 0;
    fs_status_t s = xen_domain(be, domid, &dom, err);
    if (s != FS_OK) {
        return s;
    }
    if (dom.name[0] == '\0' || strchr(dom.name, '/')) {
        return FS_OK;                                   /* nobody's domain: xl gives every one a name */
    }
    DIR *proc = opendir("/proc");
    if (!proc) {
        return xen_fail(err, errno, "cannot look for the toolstack's processes");
    }
    for (struct dirent *e; (e = readdir(proc)) != NULL;) {
        if (!isdigit((unsigned char)e->d_name[0])) {
            continue;
        }
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid <= 1 || pid == getpid() || !is_monitor(pid, dom.name)) {
            continue;
        }
        if (signal == SIGCONT && state_of(pid) != 'T') {
            continue;
        }
        if (kill(pid, signal) == 0) {
            ++*touched;
        }
    }
    closedir(proc);
    return FS_OK;
}

fs_status_t xen_monitor_hold(struct hv_backend *be, uint16_t domid, uint32_t *held, struct fs_error *err)
{
    return for_each_monitor(be, domid, SIGSTOP, held, err);
}

fs_status_t xen_monitor_release(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    uint32_t touched;
    return for_each_monitor(be, domid, SIGCONT, &touched, err);
}
