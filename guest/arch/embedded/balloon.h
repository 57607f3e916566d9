/*
 * balloon.h - struct hotplug_ops of a guest in a process: frames go to the machine and come back.
 */
#ifndef GUEST_ARCH_EMBEDDED_BALLOON_H
#define GUEST_ARCH_EMBEDDED_BALLOON_H

#include "../../mm/hotplug.h"
#include "machine.h"

/* Takes boot memory, before guest_balloon_ops(). False: there is none. */
bool guest_balloon_init(struct guest_machine *g);
struct hotplug_ops guest_balloon_ops(struct guest_machine *g);

#endif
