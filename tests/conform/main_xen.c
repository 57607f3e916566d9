/*
 * main_xen.c - the backend suite on real Xen, as a program for dom0.
 *
 *   conform-xen [--pv NAME] [--hap NAME] [--coop NAME] [--only PREFIX] [--dir DIR]
 * Exit: 0 all passed, 1 some failed, 2 bad usage, 3 no Xen.
 */
#include "conform.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct conform c = { 0 };
    for (int i = 1; i < argc; i++) {
        const char **slot = strcmp(argv[i], "--pv") == 0   ? &c.pv_name
                          : strcmp(argv[i], "--hap") == 0  ? &c.hap_name
                          : strcmp(argv[i], "--coop") == 0 ? &c.coop_name
                          : strcmp(argv[i], "--only") == 0 ? &c.only
                          : strcmp(argv[i], "--dir") == 0  ? &c.work_dir
                                                           : NULL;
        if (!slot || i + 1 == argc) {
            fprintf(stderr, "usage: conform-xen [--pv NAME] [--hap NAME] [--only PREFIX] [--dir DIR]\n");
            return 2;
        }
        *slot = argv[++i];
    }
    fs_status_t s = hv_xen_open(&c.be, &c.err);
    if (s != FS_OK) {
        fprintf(stderr, "%s: %s\n", fs_status_name(s), c.err.text);
        return 3;
    }
    unsigned failed = conform_run(&c);
    c.be->ops->close(c.be);
    return failed ? 1 : 0;
}
