/*
 * json_meminfo.c - a guest's memory as one JSON line.
 *
 * Owns: nothing.
 * Invariants: I1 names of counters and settings are values, not members: a guest of another version brings other ones.
 */
#include "json.h"
#include "json_priv.h"

static json_t *numbers(const uint64_t *list, size_t count)
{
    struct object a;

    object_begin_array(&a);
    for (size_t i = 0; i < count; i++) {
        object_append(&a, json_number(list[i]));
    }
    return object_end(&a);
}

static json_t *json_zone(const struct hv_meminfo_zone *z)
{
    static const char *const kinds[HV_ZONE_KINDS] = { "DMA", "Normal", "Movable" };
    static const char *const types[HV_MIGRATETYPES] = { "unmovable", "movable", "reclaimable", "accounted", "highatomic", "isolate" };
    struct object o, list, unusable, extfrag;

    object_begin(&o);
    put_number(&o, "node", z->node);
    put_string(&o, "zone", kinds[z->kind < HV_ZONE_KINDS ? z->kind : 0], 16);
    put_number(&o, "present_pages", z->present_pages);
    put_number(&o, "managed_pages", z->managed_pages);
    put_number(&o, "free_pages", z->free_pages);
    put_number(&o, "isolated_pages", z->isolated_pages);
    put_number(&o, "watermark_min", z->watermark[0]);
    put_number(&o, "watermark_low", z->watermark[1]);
    put_number(&o, "watermark_high", z->watermark[2]);
    object_begin_array(&list);
    for (unsigned t = 0; t < HV_MIGRATETYPES; t++) {
        struct object row;

        object_begin(&row);
        put_string(&row, "migratetype", types[t], 16);
        put_number(&row, "pageblocks", z->blocks[t]);
        object_put(&row, "free_units", numbers(z->free_units[t], HV_ORDERS));
        object_append(&list, object_end(&row));
    }
    object_put(&o, "types", object_end(&list));
    object_begin_array(&unusable);
    object_begin_array(&extfrag);
    for (unsigned order = 0; order < HV_ORDERS; order++) {
        object_append(&unusable, json_real((double)z->unusable[order] / 1000));
        object_append(&extfrag, json_real((double)z->extfrag[order] / 1000));
    }
    object_put(&o, "unusable_index", object_end(&unusable));
    object_put(&o, "extfrag_index", object_end(&extfrag));
    put_number(&o, "fragmentation_score", z->score);
    return object_end(&o);
}

static json_t *json_values(const struct hv_meminfo_value *list, size_t count, bool settings)
{
    struct object a;

    object_begin_array(&a);
    for (size_t i = 0; i < count; i++) {
        struct object o;

        object_begin(&o);
        PUT_FIELD(&o, "name", list[i].name);
        if (!list[i].action) {
            put_number(&o, "value", list[i].value);
        }
        if (settings) {
            put_number(&o, "least", list[i].least);
            put_number(&o, "most", list[i].most);
            put_bool(&o, "action", list[i].action);
        }
        object_append(&a, object_end(&o));
    }
    return object_end(&a);
}

bool json_meminfo(FILE *f, const struct hv_meminfo *m)
{
    struct object o, sets, zones;

    json_begin_line(&o, "meminfo");
    object_put(&o, "domid", json_domid(m->domid));
    PUT_FIELD(&o, "name", m->name);
    object_begin_array(&sets);
    for (size_t i = 0; i < m->set_count; i++) {
        struct object s;

        object_begin(&s);
        PUT_FIELD(&s, "name", m->sets[i].name);
        put_number(&s, "before", m->sets[i].before);
        put_number(&s, "after", m->sets[i].after);
        object_append(&sets, object_end(&s));
    }
    object_put(&o, "sets", object_end(&sets));
    object_begin_array(&zones);
    for (size_t i = 0; i < m->zone_count; i++) {
        object_append(&zones, json_zone(&m->zones[i]));
    }
    object_put(&o, "zones", object_end(&zones));
    object_put(&o, "counters", json_values(m->counters, m->counter_count, false));
    object_put(&o, "settings", json_values(m->tunables, m->tunable_count, true));
    return json_write_line(f, &o);
}
