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
