/*
 * main.c: picks the subcommand. What a subcommand does is in its cmd_*.c.
 */
#include "commands.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", cmd_serve, "answer POST /distribution over HTTP"},
    {"score", cmd_score, "the distributions of one text, without a server"},
    {"info", cmd_info, "what a model file holds"},
};

static void print_help(FILE *out) {
    fputs("logitd: exact next-token distributions from a language model\n\n", out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        fprintf(out, "  logitd %-8s %s\n", commands[i].name, commands[i].help);
    fputs("\nlogitd COMMAND --help says what a command takes; logitd --version names this build.\n", out);
}

/// A process may be started without stdin, stdout or stderr. The next file or socket opened would get the number, and
/// with it our messages: a file that can be neither read nor written there takes the place.
static void hold_standard_files(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0) open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
    }
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : "";
    hold_standard_files();
    if (strcmp(word, "--version") == 0) {
        printf("logitd %s\n", logitd_version());
        return options_shown();
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(stdout);
        return options_shown();
    }
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(word, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    if (*word) {
        fprintf(stderr, "logitd: \"%s\" is no command; they are serve, score and info\n", word);
    } else {
        print_help(stderr);
    }
    return 2;
}
