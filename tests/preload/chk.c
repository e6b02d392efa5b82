// Fortified calls: those that fit are the plain ones, those that do not end the program with libc's own words.
#include "check.h"
#include <poll.h>

extern ssize_t __read_chk(int, void *, size_t, size_t);
extern ssize_t __recv_chk(int, void *, size_t, size_t, int);
extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
extern int __poll_chk(struct pollfd *, nfds_t, int, size_t);
extern int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);

static int fds[2];
static char buffer[64];
static struct pollfd entries[2];
static struct timespec zero;

static ssize_t call(int which, size_t room) {
    switch (which) {
    case 0: return __read_chk(fds[1], buffer, 8, room);
    case 1: return __recv_chk(fds[1], buffer, 8, room, 0);
    case 2: return __recvfrom_chk(fds[1], buffer, 8, room, 0, NULL, NULL);
    case 3: return __poll_chk(entries, 2, 0, room * sizeof *entries / 4);
    default: return __ppoll_chk(entries, 2, &zero, NULL, room * sizeof *entries / 4);
    }
}

int main(void) {
    static const char *const names[] = {"__read_chk", "__recv_chk", "__recvfrom_chk", "__poll_chk", "__ppoll_chk"};
    char text[256], name[64];
    tcp_pair(fds);
    check("a pair", ping_pong(fds, 100));
    entries[0] = (struct pollfd){.fd = fds[1], .events = POLLIN};
    entries[1] = (struct pollfd){.fd = -1};
    for (int which = 0; which < 5; which++) {
        if (send(fds[0], "12345678", 8, 0) != 8)
            return 2;
        ssize_t expected = which < 3 ? 8 : 1;
        if (which < 3)
            sleep_ms(5);
        else
            while (poll(entries, 1, -1) != 1) {
            }
        check(names[which], call(which, 8) == expected);
        if (which >= 3 && recv(fds[1], buffer, 8, MSG_WAITALL) != 8)
            return 2;
        int errors[2];
        if (pipe(errors))
            return 2;
        pid_t pid = fork();
        if (pid == 0) {
            dup2(errors[1], 2);
            call(which, 7);
            _exit(0);
        }
        close(errors[1]);
        ssize_t got = 0, count;
        while (got < (ssize_t)sizeof text - 1 && (count = read(errors[0], text + got, sizeof text - 1 - got)) > 0)
            got += count;
        text[got] = 0;
        close(errors[0]);
        int status = status_of(pid);
        snprintf(name, sizeof name, "%s into less room", names[which]);
        check(name, WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT && strstr(text, "buffer overflow detected"));
    }
    check("a pair", ping_pong(fds, 100));
    // Sizes that the compiler can't know, so that these are the fortified names too.
    volatile size_t some = 8;
    char small[16];
    check("fortified by the compiler", send(fds[0], "12345678", some, 0) == 8 && read(fds[1], small, some) == 8 &&
                                           send(fds[0], "12345678", some, 0) == 8 && recv(fds[1], small, some, 0) == 8);
    return finish();
}
