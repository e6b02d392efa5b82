/* Deaths at every instruction: an end is single-stepped into a call and killed there (ptrace(2), PTRACE_SINGLESTEP).
 * Row S64 of the conformance notes: the peer sees a complete prefix, then the end; a process that holds the socket as
 * well is not held up by a lock of the dead. FAULTS_STEPS=all kills at each instruction, FAULTS_STEPS=N at each Nth. */
#include "faults.h"
#include <sys/ptrace.h>

enum { SEND, RECV, CLOSE, SHUT, SLEEPER, WAIT_SET, MEET, SPLICE, GIVE, OPS };
static const char *ops[] = {"send", "recv", "close", "shutdown", "send_to_a_sleeper", "epoll", "meet", "splice", "send_behind_unread"};
enum { SIZE = 64, HEIR = 32 };

/* ---- the one that dies ---- */
static void inherit(int fd) { /* a child that holds the socket, and uses it once its parent is dead */
    int life[2];
    char b[256];
    Q(pipe2(life, O_CLOEXEC));
    if (Q(fork())) { close(life[0]); return; }
    close(life[1]);
    alarm(20);
    while (syscall(SYS_read, life[0], b, 1) < 0 && errno == EINTR) {}
    memset(b, 0xee, HEIR);
    write_full(fd, b, HEIR);
    while (recv(fd, b, sizeof b, MSG_DONTWAIT) > 0) {}
    shutdown(fd, SHUT_WR);
    _exit(0);
}
static char b[SIZE];
static int pipes[2];
static void operate(int op, int fd) {
    switch (op) {
    case SEND: case SLEEPER: send(fd, b, SIZE, MSG_NOSIGNAL); break;
    case RECV: recv(fd, b, SIZE, 0); break;
    case SPLICE: splice(fd, NULL, pipes[1], NULL, SIZE, 0); break;
    case GIVE: send(fd, b, SIZE, MSG_NOSIGNAL | MSG_DONTROUTE); break;
    case CLOSE: close(fd); break;
    case SHUT: shutdown(fd, SHUT_WR); break;
    case WAIT_SET: {
        int e = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event ev = {.events = EPOLLIN};
        epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev);
        epoll_wait(e, &ev, 1, 1000);
        recv(fd, b, SIZE, 0);
        break;
    }
    case MEET: for (int i = 0; i < 6; i++) { write_full(fd, b, 32); read_full(fd, b, 32); } break;
    }
}
/* Messages there and back until one went by the ring and so, most likely, the next one will. */
static void until_open(int fd, int first) {
    char m[32] = {0};
    volatile struct card *c = card(fd);
    while (!first && !m[0]) CHECK(read_full(fd, m, 32) == 32 && write_full(fd, m, 32) == 32, "open");
    for (int i = 0; first && !m[0]; i++) {
        uint64_t before = c ? c->ring_sends : 0;
        CHECK(write_full(fd, m, 32) == 32 && read_full(fd, m, 32) == 32, "open");
        m[0] = !c || c->ring_sends > before || i == 500;
        if (m[0]) { CHECK(write_full(fd, m, 32) == 32 && read_full(fd, m, 32) == 32, "open"); }
    }
}
ROLE(stepped) { /* PORT OP HEIR */
    int fd = connect_to(atoi(argv[0])), op = atoi(argv[1]);
    if (op != MEET) { warm(fd, 1); until_open(fd, 1); }
    if (atoi(argv[2])) inherit(fd);
    tell(1);
    hear();
    fill(b, SIZE, 5, 0);
    Q(pipe(pipes));
    if (op == GIVE) CHECK(send(fd, b, SIZE, 0) == SIZE, "what is unread");
    Q(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    operate(op, fd);
    raise(SIGSTOP);
    for (;;) pause();
}

/* ---- its peer ---- */
static void witness_end(int fd, int op, int heir) {
    char b[4096];
    long got = 0, r, left = 0;
    while ((r = recv(fd, b + got, sizeof b - got, 0)) > 0) {
        got += r;
        if (op == MEET) { if (got % 32 == 0) { send(fd, b + got - 32, 32, MSG_NOSIGNAL); } if (got > 4000) got = 0; }
    }
    CHECK(r == 0 || errno == ECONNRESET, "%s: the end is %ld", ops[op], r);
    if (op != MEET) {
        while (left < got && (unsigned char)b[left] != 0xee) left++;
        int whole = op == GIVE ? left == SIZE || left == 2 * SIZE : left == 0 || ((op == SEND || op == SLEEPER) && left == SIZE);
        for (long i = 0; i < left; i += SIZE) verify(b + i, left - i < SIZE ? left - i : SIZE, 5, 0);
        CHECK(whole, "%s: %ld bytes of a message of %d", ops[op], left, SIZE);
        for (long i = left; i < got; i++) CHECK((unsigned char)b[i] == 0xee, "%s: a wrong byte at %ld", ops[op], i);
        CHECK(got - left == 0 || (heir && got - left == HEIR), "%s: %ld bytes of the heir", ops[op], got - left);
        if (heir && r == 0 && op != SHUT) CHECK(got - left == HEIR, "%s: the heir's bytes are lost", ops[op]);
    }
    CHECK(WAIT((r = send(fd, "x", 1, MSG_NOSIGNAL)) < 0, 3000), "%s: sends go on for ever", ops[op]);
    CHECK(errno == EPIPE || errno == ECONNRESET, "%s: a later send gives %d", ops[op], errno);
}
ROLE(witness) {
    int port, l = listen_on(&port), n, rounds = 0, sends = 0;
    uint64_t ring = 0;
    struct held before = {0};
    tell(port);
    while ((n = hear()) >= 0) { /* 2 * operation + heir */
        int op = n / 2, fd = accept_on(l);
        if (op != MEET) { warm(fd, 0); until_open(fd, 0); }
        if (op == RECV || op == WAIT_SET || op == SPLICE) put(fd, SIZE, 5, 0);
        volatile struct card *c = card(fd);
        uint64_t warmed = c ? c->ring_received_bytes : 0;
        tell(1);
        if (op != SLEEPER && op != MEET) hear();
        witness_end(fd, op, n % 2);
        if (op == SEND && c) { sends++; ring += c->ring_received_bytes - warmed; }
        close(fd);
        if (++rounds == 8) before = held();
        else if (rounds > 8 && rounds % 16 == 0) check_held(before, "after deaths in mid-call");
        tell(2);
    }
    if (sends) printf("stepping: %d sends that were cut short brought %llu bytes by rings\n", sends, (unsigned long long)ring);
    if (sends) CHECK(ring > 0, "no send went by a ring");
}

/* ---- the one that kills ---- */
/* Steps the process `most` times; gives how many it took until the call was over, or -1 if it is not. */
static long step(pid_t pid, long most) {
    int status, signal = 0;
    for (long n = 0; n < most; n++) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)signal)) return n;
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) die("the stepped process ended with %#x", status);
        signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status);
        if (signal == SIGSTOP) return n;
    }
    return -1;
}
/* One death after so many steps; gives what `step` gave. */
static long death(struct role witness, int port, int op, int heir, long most) {
    int status;
    struct role s = spawn("stepped", number(port), number(op), number(heir));
    tell_on(witness.control, op * 2 + heir);
    CHECK(hear_on(s.control) == 1 && hear_on(witness.control) == 1, "%s: ready", ops[op]);
    if (op == SLEEPER) wait_asleep(witness.pid, witness.pid);
    tell_on(s.control, 0);
    CHECK(waitpid(s.pid, &status, 0) == s.pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "%s: not traced", ops[op]);
    long steps = step(s.pid, most);
    murder(s);
    if (op != SLEEPER && op != MEET) tell_on(witness.control, 0);
    struct pollfd p = {witness.control, POLLIN, 0};
    CHECK(poll(&p, 1, 5000) == 1, "%s%s: the peer has seen no end, %ld steps in", ops[op], heir ? " with an heir" : "", most);
    CHECK(hear_on(witness.control) == 2, "%s%s: the peer failed, %ld steps in", ops[op], heir ? " with an heir" : "", most);
    return steps;
}
CASE(stepping) { /* OPERATION: all if there is none */
    const char *every = getenv("FAULTS_STEPS");
    struct role w = spawn("witness");
    int port = hear_on(w.control);
    for (int op = 0; op < OPS; op++) {
        if (argc && strcmp(argv[0], ops[op])) continue;
        for (int heir = 0; heir < (op == MEET || op == GIVE ? 1 : 2); heir++) {
            long total = death(w, port, op, heir, 10000000), deaths = 1;
            long by = !every ? total / scaled(10) : strcmp(every, "all") ? atol(every) : 1;
            if (by < 1) by = 1;
            for (long n = 1 + rnd(by); n <= total; n += by, deaths++) death(w, port, op, heir, n);
            printf("stepping: %ld deaths in the %ld instructions of %s%s\n", deaths, total, ops[op], heir ? ", with an heir" : "");
        }
    }
    tell_on(w.control, -1);
    finish(w);
}
