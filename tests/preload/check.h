// What the preload programs share: each check prints one line, and a failed one ends the program with status 1
// at its end. The same program runs with and without accel, and both outputs must be equal.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

static void check(const char *name, bool good) {
    if (!good)
        failures++;
    printf("%s %s\n", good ? "ok" : "FAILED", name);
    fflush(stdout);
}

static int finish(void) { return failures != 0; }

// A connected TCP pair over 127.0.0.1.
static inline void tcp_pair(int fds[2]) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&address, &length) ||
        connect(fds[0], (struct sockaddr *)&address, sizeof address) ||
        (fds[1] = accept(listener, NULL, NULL)) < 0) {
        perror("tcp_pair");
        exit(2);
    }
    setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fds[1], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
}

// Carries a few messages each way, so that a connection that can be accelerated is.
static inline bool ping_pong(int fds[2], int rounds) {
    for (int i = 0; i < rounds; i++) {
        unsigned char byte = (unsigned char)i;
        for (int side = 0; side < 2; side++) {
            if (send(fds[side], &byte, 1, 0) != 1 || recv(fds[1 - side], &byte, 1, 0) != 1 ||
                byte != (unsigned char)i)
                return false;
        }
    }
    return true;
}

static inline void sleep_ms(long ms) {
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

static inline int status_of(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}
