/*
 * compressed.c - a whole .zst or plain file into memory.
 *
 * Owns: nothing that outlives a call.
 * Invariants: I1  the result is never larger than LIMIT_BYTES, whatever the file claims.
 * Lock order: none.
 * Why: traces are small enough to hold; a stream that is decoded as it is read finds
 *   truncation and damage by itself (the frame has a checksum or an end).
 * Cost: one pass.
 */
#include "pagetrace.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define LIMIT_BYTES (4ull << 30)
#define CHUNK_BYTES (1u << 20)

struct growing { uint8_t *data; size_t bytes, capacity; };

static bool reserve(struct growing *g, size_t more)
{
    size_t capacity = g->capacity != 0 ? g->capacity : CHUNK_BYTES;
    uint8_t *data;

    if (g->bytes + more + 1 > LIMIT_BYTES) {
        return false;
    }
    while (capacity < g->bytes + more + 1) {
        capacity *= 2;
    }
    if (capacity == g->capacity) {
        return true;
    }
    data = realloc(g->data, capacity);
    if (data == NULL) {
        return false;
    }
    g->data = data;
    g->capacity = capacity;
    return true;
}

/* Decode one chunk of input into g. *done: a frame ended with the chunk. */
static bool decode(ZSTD_DStream *stream, const uint8_t *in, size_t in_bytes, struct growing *g, bool *done, const char **why)
{
    ZSTD_inBuffer input = { in, in_bytes, 0 };

    while (input.pos < input.size) {
        ZSTD_outBuffer output;
        size_t left;

        if (!reserve(g, CHUNK_BYTES)) {
            *why = "too large";
            return false;
        }
        output = (ZSTD_outBuffer){ g->data + g->bytes, CHUNK_BYTES, 0 };
        left = ZSTD_decompressStream(stream, &output, &input);
        if (ZSTD_isError(left)) {
            *why = ZSTD_getErrorName(left);
            return false;
        }
        g->bytes += output.pos;
        *done = left == 0;
    }
    return true;
}

static bool read_all(FILE *file, bool zstd, struct growing *g, const char **why)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    uint8_t *chunk = malloc(CHUNK_BYTES);
    bool ok = stream != NULL && chunk != NULL, done = !zstd;

    *why = "out of memory";
    while (ok) {
        size_t n = fread(chunk, 1, CHUNK_BYTES, file);

        if (n == 0) {
            break;
        }
        if (zstd) {
            ok = decode(stream, chunk, n, g, &done, why);
        } else if ((ok = reserve(g, n))) {
            memcpy(g->data + g->bytes, chunk, n);
            g->bytes += n;
        }
    }
    if (ok && ferror(file)) {
        *why = strerror(errno);
        ok = false;
    } else if (ok && !done) {
        *why = "the compressed data end early (truncated file)";
        ok = false;
    }
    ZSTD_freeDStream(stream);
    free(chunk);
    return ok && reserve(g, 0);
}

bool read_compressed(const char *path, uint8_t **out, size_t *bytes, char *error, size_t error_bytes)
{
    FILE *file = fopen(path, "rb");
    struct growing g = { .data = NULL };
    uint8_t magic[4] = { 0 };
    const char *why = NULL;
    bool ok;

    if (file == NULL) {
        snprintf(error, error_bytes, "%s: %s", path, strerror(errno));
        return false;
    }
    ok = fread(magic, 1, 4, file) == 4 && memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0;
    rewind(file);
    ok = read_all(file, ok, &g, &why);
    fclose(file);
    if (!ok) {
        snprintf(error, error_bytes, "%s: %s", path, why);
        free(g.data);
        return false;
    }
    g.data[g.bytes] = '\0';
    *out = g.data;
    *bytes = g.bytes;
    return true;
}
