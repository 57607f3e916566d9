/*
 * page_hash.h - a 64-bit hash of one 4 KiB page, and of a page table by meaning.
 */
#ifndef FRAMESHIFT_HV_PAGE_HASH_H
#define FRAMESHIFT_HV_PAGE_HASH_H

#include <stdint.h>
#include "frameshift/frame.h"

/* Hash of 512 words as they stand. Never 0, so that 0 can mean "not hashed". */
uint64_t page_hash(const uint64_t *words);

/* The same where each word goes through fn(arg, index, word) first. */
uint64_t page_hash_mapped(const uint64_t *words, uint64_t (*fn)(void *arg, unsigned index, uint64_t word), void *arg);

#endif
