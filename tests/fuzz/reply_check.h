/*
 * reply_check.h: a request's bytes taken the whole way, from JSON to the reply's last byte, over the fake engine
 * (unit/fake_engine.h), and what openapi.json promises of it checked. For the harnesses that differ in how they make
 * bytes.
 */
#ifndef REPLY_CHECK_H
#define REPLY_CHECK_H

#include "fuzz.h"

/// Before the first: limits small enough for thousands of requests a second.
void reply_check_init(void);
/// body[n] must be '\0'. `step_tokens`: of the fake engine, so that rows come a few at a time. Whether it was accepted.
bool reply_check(const char *body, size_t n, const char *accept, int step_tokens);

#endif
