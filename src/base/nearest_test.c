/* Which name may have been meant. */
#include "base/nearest.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char *meant(const char *wanted)
{
    static const char *const names[] = {"max-length", "max-length-bytes", "max-age", "overflow", "k"};
    struct nearest nearest = nearest_of(slice_str(wanted));
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        nearest_try(&nearest, slice_str(names[i]));
    return nearest_found(&nearest) ? (const char *)nearest.best.ptr : "";
}

static void test_slips(void **state)
{
    (void)state;
    assert_string_equal(meant("max-lenght"), "max-length");
    assert_string_equal(meant("max-length-byte"), "max-length-bytes");
    assert_string_equal(meant("MAX-LENGTH"), "max-length");
    assert_string_equal(meant("overfow"), "overflow");
    assert_string_equal(meant("length"), "");
    assert_string_equal(meant("x"), "");
    assert_string_equal(meant(""), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
