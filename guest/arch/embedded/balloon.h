/*
 * balloon.h - struct hotplug_ops of a guest in a process: frames go to the machine and come back.
 */
#ifndef GUEST_ARCH_EMBEDDED_BALLOON_H
#define GUEST_ARCH_EMBEDDED_BALLOON_H

#include "../../mm/hotplug.h"
#include "machine.h"

struct hotplug_ops guest_balloon_ops(struct guest_machine *g);

#endif
