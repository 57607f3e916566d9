/* First version: enough to see a guest live. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
static uint64_t now(void){struct timespec t; clock_gettime(CLOCK_BOOTTIME,&t); return t.tv_sec*1000000000ull+t.tv_nsec;}
int main(void)
{
    size_t n = 64u<<20; uint64_t *p = mmap(0,n,PROT_READ|PROT_WRITE,MAP_PRIVATE|MAP_ANONYMOUS,-1,0), i, wrong=0, checked=0, seq=0, last=now(), gap=0, beat=last;
    for (i=0;i<n/8;i++) p[i]=i*0x9e3779b97f4a7c15ull;
    for(;;) for (i=0;i<n/8;i++) {
        if (p[i]!=i*0x9e3779b97f4a7c15ull) wrong+=8;
        checked+=8;
        if (!(i&1023)) { uint64_t t=now(); if (t-last>gap) gap=t-last; last=t;
            if (t-beat>1000000000ull) { printf("BEAT seq=%llu t_ns=%llu checked_bytes=%llu wrong_bytes=%llu fpu_bad=0 gap_ns=%llu end\n",(unsigned long long)++seq,(unsigned long long)t,(unsigned long long)checked,(unsigned long long)wrong,(unsigned long long)gap); fflush(stdout); beat=t; gap=0; last=now(); } }
    }
}
