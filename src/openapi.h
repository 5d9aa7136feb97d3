/*
 * openapi.h: the OpenAPI 3.1 document of every route, written by hand in openapi.json and linked in by openapi.S.
 * tests/test_openapi.py holds the running server to it.
 */
#ifndef OPENAPI_H
#define OPENAPI_H

extern const char openapi_json[], openapi_json_end[]; // from the first byte to past the last; no NUL

#endif
