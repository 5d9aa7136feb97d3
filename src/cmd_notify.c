/*
 * cmd_notify.c: tells the service manager how far this process is: sd_notify(3)'s protocol, a datagram to the socket
 * that $NOTIFY_SOCKET names. Without that variable nobody asked, and nothing is sent; failures are not told either, as
 * a server that works must not end because of its manager.
 */
#include "commands.h"
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void notify_manager(const char *state) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const size_t n = path ? strlen(path) : 0;
    if (n == 0 || n >= sizeof to.sun_path || !strchr("/@", path[0])) return;
    memcpy(to.sun_path, path, n);
    if (path[0] == '@') to.sun_path[0] = '\0'; // an abstract name, which has no end
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    (void)!sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&to, size);
    close(fd);
}
