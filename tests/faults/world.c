/* What is around a connection: other clocks, firewalls, and who may look at its memory. */
#include "faults.h"
#include <net/if.h>

/* ---- two time namespaces ---- */
ROLE(timed) { /* PORT or 0 */
    int port = atoi(argv[0]), first = port != 0, fd;
    if (first) fd = connect_to(port);
    else { int l = listen_on(&port); tell(port); fd = accept_on(l); }
    warm(fd, first);
    char b[64];
    struct timeval tv = {0, 20000};
    struct pollfd p = {fd, POLLIN, 0};
    /* timeouts pass, and only they */
    Q(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    CHECK(recv(fd, b, 1, 0) == -1 && errno == EAGAIN, "SO_RCVTIMEO");
    CHECK(poll(&p, 1, 20) == 0, "poll's timeout");
    tell((int)(now_us() / 1000000 / 1000000));
    hear();
    tv.tv_sec = 1000;
    Q(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    if (first) { put(fd, 50000, 1, 0); get(fd, 50000, 2, 0); } else { get(fd, 50000, 1, 0); put(fd, 50000, 2, 0); }
    if (accel()) CHECK(path_of(fd) == LOCAL, "path %d reason %d", path_of(fd), reason_of(fd));
}
CASE(time_namespace) {
    static const char offset[] = "monotonic 5000000 0\nboottime 5000000 0\n";
    struct role s = spawn("timed", "0");
    int port = hear_on(s.control), set = -1;
    if (!unshare(0x80 /* CLONE_NEWTIME */)) set = open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC);
    if (set < 0 || write(set, offset, sizeof offset - 1) < 0) { printf("SKIP time_namespace: not allowed here\n"); murder(s); return; }
    close(set);
    struct role c = spawn("timed", number(port));
    int there = hear_on(c.control), here = hear_on(s.control);
    CHECK(there >= 5 && here < there, "the clocks of both are %d and %d million seconds", here, there);
    tell_on(s.control, 0);
    tell_on(c.control, 0);
    finish(c);
    finish(s);
    printf("time_namespace: two ends whose clocks are 58 days apart\n");
}

/* ---- a firewall on loopback ---- */
static int nft(const char *rules) {
    char line[1024];
    snprintf(line, sizeof line, "LD_PRELOAD= nft '%s' 2>/dev/null", rules);
    return system(line);
}
/* Packets and bytes that the named counter has seen. */
static void counted(const char *name, long *packets, long *bytes) {
    char line[256];
    *packets = *bytes = -1;
    snprintf(line, sizeof line, "LD_PRELOAD= nft list counter inet t %s", name);
    FILE *f = popen(line, "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, " packets %ld bytes %ld", packets, bytes);
    CHECK(f && pclose(f) == 0 && *packets >= 0, "no counter %s", name);
}
static void loopback_up(void) {
    struct ifreq r = {.ifr_name = "lo"};
    int fd = Q(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    Q(ioctl(fd, SIOCGIFFLAGS, &r));
    r.ifr_flags |= IFF_UP;
    Q(ioctl(fd, SIOCSIFFLAGS, &r));
    close(fd);
}
SOLO(firewall) {
    if (unshare(CLONE_NEWNET)) { printf("SKIP firewall: no network namespace can be made here\n"); return; }
    loopback_up();
    if (nft("add table inet t; add chain inet t in { type filter hook input priority 0; }; add counter inet t seen; add counter inet t hit; add rule inet t in counter name seen")) { printf("SKIP firewall: nft is not installed or not allowed\n"); return; }
    int port, l = listen_on(&port), refused, c, s;
    char rule[256];
    long packets, bytes, before, ring = 0;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = address(), .sin_port = htons(port)};
    /* Rules that are there first decide about the connection, as on the kernel: it makes it. */
    snprintf(rule, sizeof rule, "add rule inet t in tcp dport %d counter name hit reject with tcp reset", port);
    CHECK(nft(rule) == 0, "%s", rule);
    refused = Q(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(connect(refused, (void *)&a, sizeof a) < 0 && errno == ECONNREFUSED, "a rejected connection");
    close(refused);
    CHECK(nft("flush chain inet t in; add rule inet t in counter name seen") == 0, "flush");
    snprintf(rule, sizeof rule, "add rule inet t in tcp dport %d counter name hit drop", port);
    CHECK(nft(rule) == 0, "%s", rule);
    refused = Q(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    CHECK(connect(refused, (void *)&a, sizeof a) < 0 && errno == EINPROGRESS, "a dropped connection");
    struct pollfd p = {refused, POLLOUT, 0}, q = {l, POLLIN, 0};
    CHECK(poll(&p, 1, 100) == 0 && poll(&q, 1, 0) == 0, "a dropped connection was made");
    close(refused);
    counted("hit", &packets, &bytes);
    CHECK(packets >= 2, "the rules saw %ld packets", packets);
    CHECK(nft("flush chain inet t in; add rule inet t in counter name seen") == 0, "flush");
    /* What goes by the ring is not seen by rules, whether they are there or come. */
    pair_on(l, port, &c, &s);
    warm_pair(c, s, 1);
    for (int way = 0; way < 2; way++) {
        counted("seen", &packets, &before);
        for (int i = 0; i < 20; i++) { put_ring(c, 50000, 1, ring); get(s, 50000, 1, ring); ring += 50000; }
        counted("seen", &packets, &bytes);
        if (accel()) CHECK(bytes - before < 100000, "the firewall counted %ld of 1000000 ring bytes", bytes - before);
        else { CHECK(bytes - before >= 1000000, "the firewall counted %ld of 1000000 bytes", bytes - before); break; }
        snprintf(rule, sizeof rule, "add rule inet t in tcp dport %d counter name hit drop", port);
        if (!way) CHECK(nft(rule) == 0, "%s", rule);
    }
    /* Without the rule the connection ends as ever. */
    CHECK(nft("delete table inet t") == 0, "delete");
    put(s, 1000, 2, 0);
    get(c, 1000, 2, 0);
    close(s);
    char b[1];
    CHECK(recv(c, b, 1, 0) == 0, "no EOF");
    printf("firewall: rejected, dropped, counted; %ld bytes by the ring past a later rule\n", ring);
}

/* ---- who sees what: a secret that went by one ring, looked for in the next one ---- */
static const char secret[17] = "CANARY-7c1e9b42!";
/* The next of this process's mappings of rings. */
static int next_ring(FILE *maps, unsigned char **from, unsigned char **to) {
    char line[1024];
    while (maps && fgets(line, sizeof line, maps)) {
        if (strstr(line, "accel-channel") && sscanf(line, "%p-%p", (void **)from, (void **)to) == 2) return 1;
    }
    if (maps) fclose(maps);
    return 0;
}
/* How often the secret lies in them; their bytes. */
static int secrets_in_rings(size_t *bytes) {
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned char *from, *to;
    int found = 0;
    *bytes = 0;
    while (next_ring(maps, &from, &to)) {
        *bytes += to - from;
        for (unsigned char *at = from; (at = memmem(at, to - at, secret, 16)); at++) found++;
    }
    return found;
}
static void tell_secrets(int fd, long n) {
    char b[1600];
    for (int i = 0; i < 100; i++) memcpy(b + i * 16, secret, 16);
    /* Turn by turn: both ends look at the ring all the time. */
    for (; n > 0; n -= sizeof b) CHECK(write_full(fd, b, sizeof b) == sizeof b && read_full(fd, b + 1599, 1) == 1, "secrets");
}
/* The bytes of the library's memory that a peer was not sent are zero: only positions and counts are not. */
static long unexplained(void) {
    FILE *maps = fopen("/proc/self/maps", "re");
    unsigned char *from, *to;
    long count = 0;
    while (next_ring(maps, &from, &to)) {
        for (unsigned char *at = from; at < to; at++) count += *at != 0;
    }
    return count;
}
ROLE(knows_secret) { /* PORT-OF-FRIEND PORT-OF-STRANGER */
    int friend = connect_to(atoi(argv[0]));
    size_t bytes;
    warm(friend, 1);
    tell_secrets(friend, 800000);
    if (accel()) CHECK(card(friend)->ring_sent_bytes > 0 && secrets_in_rings(&bytes) > 0, "no secret went by a ring: this test proves nothing");
    hear();
    /* the friend is gone, or is still there: other connections get other memory */
    for (int i = 0; i < 4; i++) {
        if (i == 2) close(friend);
        int other = connect_to(atoi(argv[1]));
        warm(other, 1);
        char b[1];
        CHECK(recv(other, b, 1, 0) == 0, "the end");
        close(other);
    }
}
ROLE(friendly) {
    int port, l = listen_on(&port);
    char b[1600];
    tell(port);
    int fd = accept_on(l);
    warm(fd, 0);
    for (long n = 0; n < 800000; n += sizeof b) CHECK(read_full(fd, b, sizeof b) == sizeof b && !memcmp(b + 1584, secret, 16) && write_full(fd, b + 1599, 1) == 1, "secrets");
    tell(1);
    CHECK(recv(fd, b, 1, 0) == 0, "the end");
}
ROLE(curious) {
    int port, l = listen_on(&port);
    tell(port);
    for (int i = 0; i < 4; i++) {
        size_t bytes;
        int fd = accept_on(l);
        warm(fd, 0);
        int found = secrets_in_rings(&bytes);
        long others = unexplained();
        CHECK(found == 0, "%d secrets of another connection", found);
        if (accel()) CHECK(bytes >= 2 * 16384 && others < 4096, "%zu bytes of rings, %ld of them are not zero", bytes, others);
        close(fd);
    }
}
/* Another user finds no way to the rings of a process. */
static void pry(pid_t pid) {
    char path[64], b[16];
    struct iovec here = {b, sizeof b}, there = {(void *)&secret, sizeof b};
    static const char *const ways[] = {"/proc/%d/mem", "/proc/%d/maps", "/proc/%d/environ"};
    Q(setresuid(1234, 1234, 1234));
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, ways[i], pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(fd < 0 || read(fd, b, 1) <= 0, "another user reads %s", path);
    }
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    CHECK(!opendir(path), "another user lists %s", path);
    snprintf(path, sizeof path, "/proc/%d/map_files", pid);
    CHECK(!opendir(path), "another user lists %s", path);
    CHECK(process_vm_readv(pid, &here, 1, &there, 1, 0) < 0, "another user reads the memory");
    int process = syscall(SYS_pidfd_open, pid, 0);
    for (int fd = 3; fd < 5000; fd++) CHECK(syscall(SYS_pidfd_getfd, process, fd, 0) < 0, "another user takes descriptor %d", fd);
    _exit(0);
}
CASE(secrets) {
    int rounds = scaled(3);
    for (int i = 0; i < rounds; i++) {
        struct role f = spawn("friendly"), c = spawn("curious");
        int to_friend = hear_on(f.control);
        struct role k = spawn("knows_secret", number(to_friend), number(hear_on(c.control)));
        CHECK(hear_on(f.control) == 1, "told");
        if (!geteuid()) {
            pid_t p = Q(fork());
            if (!p) pry(k.pid);
            reap(p);
        }
        tell_on(k.control, 0);
        finish(k);
        finish(f);
        finish(c);
    }
    if (geteuid()) printf("SKIP secrets: what another user can read needs root\n");
    printf("secrets: %d processes that told theirs by a ring; nothing of it in the %d rings that came next\n", rounds, rounds * 4);
}
