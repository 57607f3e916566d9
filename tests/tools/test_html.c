/*
 * test_html.c - the HTML report: self-contained, well formed, and no byte of a name or a message is markup.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/html.h"
#include "canned.h"

static char *page;

static void write_page(bool corrupt)
{
    size_t bytes = 0;
    struct hv_drill_step step;
    struct hv_drill_report drill;
    struct hv_report report;
    struct hv_status_report machine;
    FILE *f = open_memstream(&page, &bytes);

    assert_non_null(f);
    canned_drill_step(&step, corrupt);
    canned_drill(&drill, corrupt);
    canned_report(&report);
    canned_status(&machine);
    step.machine = &machine;
    struct html *h = html_begin(f);
    assert_non_null(h);
    html_step(h, &step);
    html_report(h, step.dimm, &report, FS_PARTIAL);
    html_step(h, &step);
    html_end(h, &drill, corrupt ? FS_CORRUPT : FS_OK, corrupt ? step.text : "");
    assert_int_equal(fclose(f), 0);
    hv_report_free(&report);
    hv_status_free(&machine);
}

/* Every element that is opened is closed in order; attributes are quoted. */
static void well_formed(const char *s)
{
    static const char *const empty[] = { "!doctype", "meta", "rect" };
    char open[32][16];
    size_t depth = 0, elements = 0;

    for (const char *p = strchr(s, '<'); p; p = strchr(p, '<'), elements++) {
        char name[16];
        bool ends = p[1] == '/', none = false;
        size_t n = strcspn(p + 1 + ends, " >/");
        const char *end = strchr(p, '>');
        assert_true(end && n > 0 && n < sizeof(name));
        memcpy(name, p + 1 + ends, n);
        name[n] = '\0';
        for (size_t i = 0; i < FS_ARRAY_SIZE(empty); i++) {
            none = none || strcmp(name, empty[i]) == 0;
        }
        if (ends) {
            assert_true(depth > 0);
            assert_string_equal(open[--depth], name);
        } else if (!none && end[-1] != '/') {
            assert_true(depth < FS_ARRAY_SIZE(open));
            strcpy(open[depth++], name);
        }
        p = end;
    }
    assert_int_equal(depth, 0);
    assert_true(elements > 100);
}

static void a_page_of_a_good_drill(void **state)
{
    (void)state;
    write_page(false);
    well_formed(page);
    assert_non_null(strstr(page, ">passed<"));
    assert_non_null(strstr(page, "131,047"));
    assert_non_null(strstr(page, "Evacuation of NODE1"));
    assert_non_null(strstr(page, "<svg"));
    assert_null(strstr(page, "class=\"bad\""));
    for (const char *const *w = (const char *const[]){ "http:", "https:", "<script", "src=", "@import", "url(", NULL }; *w; w++) {
        assert_null(strstr(page, *w));              /* nothing from elsewhere */
    }
    free(page);
}

static void a_page_of_a_bad_drill(void **state)
{
    (void)state;
    write_page(true);
    well_formed(page);
    assert_non_null(strstr(page, ">failed<"));
    assert_non_null(strstr(page, "faults: 2"));
    assert_non_null(strstr(page, "a call failed on purpose"));
    assert_non_null(strstr(page, "&#60;b&#62;pv1&#60;/b&#62; &#38; &#xfffd;[31mpage 7 differs"));
    assert_null(strstr(page, "<script"));
    assert_null(strstr(page, "<b>"));
    assert_null(strchr(page, '\x1b'));
    assert_null(strchr(page, '\xff'));
    free(page);
}

static void without_a_file(void **state)
{
    (void)state;
    struct hv_drill_step step;
    struct hv_drill_report drill;
    struct hv_report report = { 0 };
    canned_drill_step(&step, false);
    canned_drill(&drill, false);
    html_step(NULL, &step);
    html_report(NULL, "x", &report, FS_OK);
    html_end(NULL, &drill, FS_OK, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_of_a_good_drill), cmocka_unit_test(a_page_of_a_bad_drill), cmocka_unit_test(without_a_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
