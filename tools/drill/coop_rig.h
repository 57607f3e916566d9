/*
 * coop_rig.h - the kernel of guest/ as the drill runs it.
 */
#ifndef FRAMESHIFT_TOOLS_COOP_RIG_H
#define FRAMESHIFT_TOOLS_COOP_RIG_H

struct emb_kernel_ops;
/* Never NULL in the program; a test's stand-in may answer NULL: no such guests then. */
const struct emb_kernel_ops *coop_rig_ops(void);

/* The guest behind what these ops have created, for tests that look into it or spoil it. */
struct coop_guest;
struct coop_guest *coop_rig_guest(void *kernel);

#endif
