/*
 * test_backend_ops.c: every operation of every backend against the scalar reference (the CPU level of that name), on
 * random shapes that are no multiple of any tile; and the promise that a row's bits depend on nothing but the row.
 *
 *     test_backend_ops          every CPU level that this machine can run
 *     test_backend_ops cuda [TEST]     the GPU, or the look-alike of its driver that LD_LIBRARY_PATH puts first
 *
 * The tests stand in ops_rows.c, ops_attention.c, ops_project.c and ops_quantised.c.
 */
#include "cpu/cpu_kernels.h"
#include "ops_harness.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void test_unknown_level(void **state) {
    (void)state;
    backend *b = NULL;
    logitd_error err = {0};
    const backend_options o = {.cpu_level = "mmx"};
    assert_int_equal(cpu_backend_create(&o, &b, &err), LOGITD_EINVAL);
    assert_null(b);
    assert_non_null(strstr(err.message, "\"mmx\""));
    assert_non_null(strstr(err.message, "portable"));
    const backend_options bf16 = {.precision = "bf16"};
    assert_int_equal(cpu_backend_create(&bf16, &b, &err), LOGITD_EINVAL);
    assert_non_null(strstr(err.message, "exact"));
}

int main(int argc, char **argv) {
#define ENTRY(name) cmocka_unit_test(test_##name),
    const struct CMUnitTest tests[] = {OPS_TESTS(ENTRY)};
    const struct CMUnitTest cpu_tests[] = {CPU_OPS_TESTS(ENTRY)};
    if (argc > 1) {
        tested[n_tested++] = argv[1];
        if (argc > 2) cmocka_set_test_filter(argv[2]); // a failed device stays failed for the tests after it
        const int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
        end_gpus();
        return n_failed;
    }
    for (int i = 0; i < n_cpu_levels; i++)
        if (cpu_levels[i]->supported()) tested[n_tested++] = cpu_levels[i]->name;
    return cmocka_run_group_tests(tests, NULL, NULL) + cmocka_run_group_tests(cpu_tests, NULL, NULL);
}
