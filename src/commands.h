/*
 * commands.h: the subcommands of logitd. argv[0] is the subcommand's name. Each returns the exit status: 0, 1 for a
 * failure (one sentence on stderr), 2 for a wrong command line.
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include "util.h"
#include <getopt.h>

int cmd_serve(int argc, char **argv);
int cmd_score(int argc, char **argv);
int cmd_info(int argc, char **argv);

// ------------------------------------------------------------------ options that serve and score share (cmd_options.c)

/// Long options of the engine, for getopt_long: val is a letter. options_engine reads them.
#define ENGINE_OPTIONS                                                                                                 \
    {"model", required_argument, NULL, 'm'}, {"backend", required_argument, NULL, 'b'},                                \
        {"precision", required_argument, NULL, 'P'}, {"threads", required_argument, NULL, 't'},                        \
        {"cpu", required_argument, NULL, 'C'}, {"ctx", required_argument, NULL, 'c'},                                  \
        {"batch-tokens", required_argument, NULL, 'B'}, {"kv-tokens", required_argument, NULL, 'K'},                   \
        {"log-level", required_argument, NULL, 'l'}, {                                                                 \
        "log-format", required_argument, NULL, 'f'                                                                     \
    }

extern const char options_engine_help[];

/// Reads one of ENGINE_OPTIONS. 0: read; 1: it is none of them; 2: its value is wrong, and stderr says so.
int options_engine(int option, const char *value, logitd_options *out);
/// An integer from min to max; false: stderr says what is wrong.
bool options_int(const char *name, const char *text, long min, long max, int *out);
/// After getopt_long gave '?' or ':', or words were left over: says it in a sentence. Always 2.
int options_wrong(const char *command, int option, char **argv);
/// After stdout was given all that was asked for (help, a version): the exit status, 1 if it could not be written.
int options_shown(void);
/// A bar on stderr, which is a terminal, in place of the last one.
void progress_draw(double fraction, const char *text);
void progress_clear(void);
/// Opens the model. What takes longer than half a second is shown on stderr: a bar on a terminal, else lines of the
/// log. NULL: stderr says why.
logitd_engine *options_open(logitd_options *options);

/// Sends "READY=1" or "STOPPING=1" to the service manager that started this process, if one did (cmd_notify.c).
void notify_manager(const char *state);

#endif
