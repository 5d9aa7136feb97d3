/*
 * replay.c: runs a harness over files and folders of inputs, where libFuzzer is not.
 *
 *   fuzz_NAME [--OPTION=…] PATH…      folders are not walked deeper; at least one input must be there
 */
#include "fuzz.h"
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>

static int run_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return -1;
    }
    buffer bytes = {0};
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0) buffer_append(&bytes, chunk, n);
    fclose(file);
    fprintf(stderr, "%s\n", path);                   // before it runs: the last name is the one that fails
    uint8_t *exact = malloc(bytes.len + !bytes.len); // so that a sanitizer sees a read past the end
    if (!exact) return -1;
    if (bytes.len) memcpy(exact, bytes.data, bytes.len);
    LLVMFuzzerTestOneInput(exact, bytes.len);
    free(exact);
    buffer_free(&bytes);
    return 1;
}

/// How many inputs ran; -1: one could not be read.
static int run_path(const char *path) {
    struct stat what;
    if (stat(path, &what) != 0 || !S_ISDIR(what.st_mode)) return run_file(path);
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, alphasort), n_run = 0;
    for (int i = 0; i < n; i++) {
        char inner[4096];
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        bool is_input = names[i]->d_name[0] != '.';
        free(names[i]);
        if (is_input && n_run >= 0) n_run = run_file(inner) < 0 ? -1 : n_run + 1;
    }
    free(names);
    return n_run;
}

int main(int argc, char **argv) {
    int n_run = 0;
    LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) {
        int n = argv[i][0] == '-' ? 0 : run_path(argv[i]);
        if (n < 0) return 1;
        n_run += n;
    }
    printf("%d inputs\n", n_run);
    return n_run > 0 ? 0 : 1;
}
