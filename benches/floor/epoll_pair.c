/* The physical limit of many connections: two ends that do only the system calls, both on this machine.
 *
 *   epoll_pair --connections N [options]          both ends; one JSON object on standard output
 *   epoll_pair --only server --port P [options]   until SIGTERM, then its JSON
 *   epoll_pair --only client --port P [options]   against any server; --watch PID,PID,... counts its processes' CPU
 *
 * The server: forked processes, each with a SO_REUSEPORT listener and a level-triggered epoll; accepts in batches,
 * reads into one buffer, counts lines and, with --ack, sends a line `_ack|TOKEN` back. It parses nothing, keeps nothing
 * per connection, and expects whole lines in a read (loopback delivers what was sent in one piece; `torn` counts).
 *
 * The client: forked processes that open blocking connections from 127.1.x.y (at most 10,000 a source address, the port
 * chosen at connect), flat out or at a rate; hold them idle; send one 64-byte line on each in turn, with --ack followed by
 * `_ack|TOKEN` and with at most 256 unanswered a process; then exit, which closes everything at once.
 *
 * CPU is that of the processes' own clocks, loopback's soft interrupts included: they run in the sender's call. Not
 * promised: latencies. A run ends by itself after --deadline seconds; what was not done by then counts as ETIME.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    PROCESSES_MAX = 512,
    ACCEPT_BATCH = 128,
    EVENT_BATCH = 256,
    READ_BYTES = 65536,
    LINE_BYTES = 64,
    WINDOW = 256,           /* unanswered messages of one client process */
    IN_FLIGHT_MAX = 65536,  /* sent and not yet read, of all together, without --ack */
    SOURCE_PORTS_MAX = 10000,
    ERRNO_MAX = 134,
};

enum phase { WAITING, OPENING, SENDING, CLOSING };

/* One process's figures; only it writes them. */
struct end {
    _Alignas(128) pid_t pid;
    atomic_ulong opened, closed, messages, acks, torn;
    atomic_ulong errors[ERRNO_MAX];
};

/* What all processes share; `phase` and `finished` are futexes. */
static struct shared {
    atomic_int phase, finished;
    struct end servers[PROCESSES_MAX], clients[PROCESSES_MAX];
} *shared;

static struct {
    long connections, servers, clients, port, deadline_s;
    double open_rate, hold_s, message_rate, message_s;
    int ack, server_only, client_only;
    pid_t watched[PROCESSES_MAX];
} plan = {.deadline_s = 600, .message_rate = 0, .message_s = 5, .hold_s = 1};

static volatile sig_atomic_t stopped;

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static void fail(const char *what)
{
    fprintf(stderr, "epoll_pair: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec * 1e-9;
}

static void nap(double length_s)
{
    struct timespec pause = {(time_t)length_s, (long)((length_s - (time_t)length_s) * 1e9)};
    nanosleep(&pause, NULL);
}

static void wait_for(atomic_int *word, int seen, double timeout_s)
{
    struct timespec timeout = {(time_t)timeout_s, (long)((timeout_s - (time_t)timeout_s) * 1e9)};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &timeout, NULL, 0);
}

static void wake(atomic_int *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void count_error(struct end *self, int number)
{
    self->errors[number > 0 && number < ERRNO_MAX ? number : 0]++;
}

static unsigned long sum(struct end *ends, long count, size_t field)
{
    unsigned long total = 0;
    for (long i = 0; i < count; i++)
        total += *(atomic_ulong *)((char *)&ends[i] + field);
    return total;
}

#define SUM(side, field) sum(shared->side, plan.side, offsetof(struct end, field))

/* --- the server ---------------------------------------------------------------------------------------------------- */

static int make_listener(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(plan.port)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &yes, sizeof yes))
        fail("listener");
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 65535))
        fail("bind");
    if (getsockname(listener, (struct sockaddr *)&address, &length))
        fail("getsockname");
    plan.port = ntohs(address.sin_port);
    return listener;
}

static void accept_batch(struct end *self, int poll, int listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
        if (descriptor < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)
                return;
            /* Out of descriptors or memory: stop listening, as a ready listener would spin. */
            count_error(self, errno);
            epoll_ctl(poll, EPOLL_CTL_DEL, listener, NULL);
            return;
        }
        if (epoll_ctl(poll, EPOLL_CTL_ADD, descriptor, &event)) {
            count_error(self, errno);
            close(descriptor);
            continue;
        }
        self->opened++;
    }
}

/* Counts whole lines; sends a line that starts with `_` back as it came. */
static void take_lines(struct end *self, int descriptor, const char *at, const char *end)
{
    const char *newline;
    for (; at < end && (newline = memchr(at, '\n', end - at)); at = newline + 1) {
        if (*at != '_') {
            self->messages++;
        } else if (send(descriptor, at, newline + 1 - at, MSG_NOSIGNAL) < 0) {
            count_error(self, errno);
        } else {
            self->acks++;
        }
    }
    if (at < end)
        self->torn++;
}

static void serve(struct end *self, int listener)
{
    static char buffer[READ_BYTES];
    struct epoll_event events[EVENT_BATCH], event = {.events = EPOLLIN, .data.fd = listener};
    int poll = epoll_create1(0);
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event))
        fail("epoll");
    while (!stopped) {
        int count = epoll_wait(poll, events, EVENT_BATCH, -1);
        for (int i = 0; i < count; i++) {
            int descriptor = events[i].data.fd;
            ssize_t length;
            if (descriptor == listener) {
                accept_batch(self, poll, listener);
                continue;
            }
            length = recv(descriptor, buffer, sizeof buffer, 0);
            if (length > 0) {
                take_lines(self, descriptor, buffer, buffer + length);
            } else if (length == 0 || errno != EAGAIN) {
                close(descriptor);
                self->closed++;
            }
        }
    }
    _exit(0);
}

/* --- the client ---------------------------------------------------------------------------------------------------- */

static int open_one(long source)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    int descriptor = socket(AF_INET, SOCK_STREAM, 0), yes = 1, why;
    if (descriptor < 0)
        return -errno;
    from.sin_addr.s_addr = htonl(0x7f010001 + source);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(plan.port);
    if (!setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes) &&
        !bind(descriptor, (struct sockaddr *)&from, sizeof from) &&
        !connect(descriptor, (struct sockaddr *)&to, sizeof to))
        return descriptor;
    why = errno;
    close(descriptor);
    return -why;
}

static long open_all(struct end *self, int *descriptors, long count, long index)
{
    long sources = count / SOURCE_PORTS_MAX + 1, opened = 0;
    double started = seconds(), rate = plan.open_rate / plan.clients;
    for (long i = 0; i < count; i++) {
        double ahead = rate > 0 ? started + i / rate - seconds() : 0;
        int descriptor;
        if (ahead > 0)
            nap(ahead > 0.005 ? ahead : 0.005);
        if (stopped) {
            self->errors[ETIME] += count - i;
            break;
        }
        descriptor = open_one(index * sources + i % sources);
        if (descriptor < 0) {
            count_error(self, -descriptor);
            continue;
        }
        descriptors[opened++] = descriptor;
        self->opened++;
    }
    return opened;
}

static void collect(struct end *self, const int *descriptors, long count, unsigned long upto)
{
    char answer[256];
    for (; self->acks < upto && !stopped; self->acks++) {
        ssize_t length = recv(descriptors[self->acks % count], answer, sizeof answer, 0);
        if (length <= 0)
            count_error(self, length ? errno : ECONNRESET);
    }
}

static void send_one(struct end *self, int descriptor)
{
    char line[LINE_BYTES * 2];
    unsigned long number = self->messages;
    int length = sprintf(line, "bench.pair.series%02lu:%lu|c|#end:client,part:abcdefghijklmnopqr", number % 100,
                         1 + number % 9);
    while (length < LINE_BYTES - 1)
        line[length++] = 's';
    line[length++] = '\n';
    if (plan.ack)
        length += sprintf(line + length, "_ack|%lu\n", number);
    if (send(descriptor, line, length, MSG_NOSIGNAL) != length)
        count_error(self, errno);
    self->messages++;
}

static void send_all(struct end *self, const int *descriptors, long count)
{
    double started = seconds(), now = started, rate = plan.message_rate / plan.clients;
    while (count && !stopped && (now = seconds()) < started + plan.message_s) {
        double due = rate > 0 ? (now - started) * rate : 1e18;
        for (int i = 0; i < WINDOW / 2 && self->messages < due; i++)
            send_one(self, descriptors[self->messages % count]);
        if (plan.ack && self->messages > WINDOW / 2)
            collect(self, descriptors, count, self->messages - WINDOW / 2);
        if (self->messages >= due)
            nap(0.005);
        while (!plan.ack && !plan.client_only && !stopped &&
               SUM(clients, messages) > SUM(servers, messages) + IN_FLIGHT_MAX)
            nap(0.001);
    }
    if (plan.ack && count)
        collect(self, descriptors, count, self->messages);
}

static void finish(enum phase next)
{
    shared->finished++;
    wake(&shared->finished);
    for (int seen; (seen = shared->phase) < (int)next && !stopped;)
        wait_for(&shared->phase, seen, 1);
}

static void drive(struct end *self, long index)
{
    long count = plan.connections / plan.clients + (index < plan.connections % plan.clients);
    int *descriptors = calloc(count + 1, sizeof *descriptors);
    if (!descriptors)
        fail("memory");
    finish(OPENING);
    count = open_all(self, descriptors, count, index);
    finish(SENDING);
    send_all(self, descriptors, count);
    finish(CLOSING);
    _exit(0);
}

/* --- the run ------------------------------------------------------------------------------------------------------- */

static double cpu_of(pid_t pid)
{
    struct timespec used;
    clockid_t clock;
    if (!pid || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &used))
        return 0;
    return used.tv_sec + used.tv_nsec * 1e-9;
}

static double cpu_s(struct end *ends, long count)
{
    double total = 0;
    for (long i = 0; i < count; i++)
        total += cpu_of(ends[i].pid);
    return total;
}

static double server_cpu_s(void)
{
    double total = cpu_s(shared->servers, plan.servers);
    for (int i = 0; plan.watched[i]; i++)
        total += cpu_of(plan.watched[i]);
    return total;
}

static long meminfo_kib(const char *name)
{
    char line[256];
    long value = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, name, strlen(name)))
            value = strtol(line + strlen(name), NULL, 10);
    fclose(file);
    return value;
}

static struct mark {
    double at_s, server_cpu_s, client_cpu_s;
    long free_kib, slab_kib;
} mark(void)
{
    return (struct mark){seconds(), server_cpu_s(), cpu_s(shared->clients, plan.clients),
                         meminfo_kib("MemFree:"), meminfo_kib("Slab:")};
}

static void fork_end(struct end *self, long index, int *listeners)
{
    pid_t parent = getpid();
    fflush(NULL);
    self->pid = fork();
    if (self->pid < 0)
        fail("fork");
    if (self->pid)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    for (long i = 0; i < plan.servers; i++)
        if (listeners[i] && (self != &shared->servers[i]))
            close(listeners[i]);
    self->pid = getpid();
    if (self >= shared->servers && self < shared->servers + PROCESSES_MAX)
        serve(self, listeners[index]);
    alarm(plan.deadline_s);
    drive(self, index);
}

/* Waits until every client has done its phase; one that died counts as done. */
static void await_clients(void)
{
    for (int seen; (seen = shared->finished) < plan.clients && !stopped;) {
        wait_for(&shared->finished, seen, 0.5);
        if (waitpid(-1, NULL, WNOHANG) > 0) {
            fprintf(stderr, "epoll_pair: a process died\n");
            shared->finished++;
        }
    }
}

/* Lets every client into `phase`. All of them wait for it: nobody counts while the count is put back. */
static void begin(enum phase phase)
{
    shared->finished = 0;
    shared->phase = phase;
    wake(&shared->phase);
}

static void await_servers(size_t field, unsigned long wanted)
{
    double deadline = seconds() + plan.deadline_s / 4.0;
    while (!plan.client_only && !stopped && seconds() < deadline && sum(shared->servers, plan.servers, field) < wanted)
        nap(0.002);
}

static void print_errors(const char *name, struct end *ends, long count)
{
    const char *comma = "";
    printf("\"%s\": {", name);
    for (int number = 0; number < ERRNO_MAX; number++) {
        unsigned long times = sum(ends, count, offsetof(struct end, errors[number]));
        const char *label = number ? strerrorname_np(number) : "other";
        if (times)
            printf("%s\"%s\": %lu", comma, label ? label : "other", times), comma = ", ";
    }
    printf("}");
}

static void print_cost(const char *name, struct mark from, struct mark to, unsigned long count)
{
    double length_s = to.at_s - from.at_s, each = count ? 1e6 / count : 0;
    printf("  \"%s\": {\"count\": %lu, \"seconds\": %.3f, \"per_second\": %.0f, \"server_cpu_s\": %.3f, \"client_cpu_s\": "
           "%.3f, \"server_us_each\": %.3f, \"client_us_each\": %.3f},\n",
           name, count, length_s, length_s > 0 ? count / length_s : 0, to.server_cpu_s - from.server_cpu_s,
           to.client_cpu_s - from.client_cpu_s, (to.server_cpu_s - from.server_cpu_s) * each,
           (to.client_cpu_s - from.client_cpu_s) * each);
}

static void print_plan(void)
{
    unsigned long least = ULONG_MAX, most = 0;
    for (long i = 0; i < plan.servers; i++) {
        unsigned long opened = shared->servers[i].opened;
        least = opened < least ? opened : least;
        most = opened > most ? opened : most;
    }
    printf("{\n  \"connections\": %ld, \"ack\": %s, \"server_processes\": %ld, \"client_processes\": %ld,\n",
           plan.connections, plan.ack ? "true" : "false", plan.servers, plan.clients);
    if (plan.servers)
        printf("  \"per_server_process\": {\"least\": %lu, \"most\": %lu},\n", least, most);
}

/* Waits until every client is gone; the CPU time of their whole lives. */
static double reap_clients(void)
{
    double total = 0;
    for (long i = 0; i < plan.clients; i++) {
        struct rusage used;
        if (wait4(shared->clients[i].pid, NULL, 0, &used) > 0)
            total += used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
    }
    return total;
}

static void run(void)
{
    struct mark before, opened, held, sending, sent, closing, closed;
    unsigned long count, kept;
    double client_cpu_s;

    await_clients();
    before = mark();
    begin(OPENING);
    await_clients();
    count = SUM(clients, opened);
    await_servers(offsetof(struct end, opened), count);
    opened = mark();
    nap(plan.hold_s);
    held = mark();
    sending = mark();
    if (plan.message_s > 0) {
        begin(SENDING);
        await_clients();
        await_servers(offsetof(struct end, messages), SUM(clients, messages));
    }
    sent = mark();
    kept = SUM(clients, opened) - SUM(servers, closed);
    closing = mark();
    begin(CLOSING);
    client_cpu_s = reap_clients();
    await_servers(offsetof(struct end, closed), count);
    closed = mark();
    closed.client_cpu_s = client_cpu_s; /* clocks of the dead cannot be read */

    print_plan();
    print_cost("open", before, opened, count);
    print_cost("hold", opened, held, 0);
    print_cost("message", sending, sent, SUM(clients, messages));
    print_cost("close", closing, closed, count);
    printf("  \"kept\": %lu, \"received\": %lu, \"acked\": %lu, \"torn\": %lu,\n", kept, SUM(servers, messages),
           SUM(clients, acks), SUM(servers, torn));
    printf("  \"memory\": {\"slab_bytes_per_connection\": %.0f, \"free_bytes_per_connection\": %.0f},\n  ",
           count ? (opened.slab_kib - before.slab_kib) * 1024.0 / count : 0,
           count ? (before.free_kib - opened.free_kib) * 1024.0 / count : 0);
    print_errors("client_errors", shared->clients, plan.clients);
    printf(", ");
    print_errors("server_errors", shared->servers, plan.servers);
    printf("\n}\n");
}

static void run_server(void)
{
    struct mark before = mark();
    printf("%ld\n", plan.port);
    fflush(stdout);
    while (!stopped)
        pause();
    print_plan();
    print_cost("serve", before, mark(), SUM(servers, messages));
    printf("  \"opened\": %lu, \"closed\": %lu, \"torn\": %lu, ", SUM(servers, opened), SUM(servers, closed),
           SUM(servers, torn));
    print_errors("server_errors", shared->servers, plan.servers);
    printf("\n}\n");
}

static void read_watched(char *list)
{
    int count = 0;
    for (char *each = strtok(list, ","); each && count < PROCESSES_MAX - 1; each = strtok(NULL, ","))
        plan.watched[count++] = atoi(each);
}

static void read_plan(int count, char **arguments)
{
    static const struct option options[] = {
        {"connections", 1, 0, 'c'}, {"servers", 1, 0, 's'},       {"clients", 1, 0, 'm'},  {"open-rate", 1, 0, 'o'},
        {"hold", 1, 0, 'h'},        {"message-rate", 1, 0, 'r'},  {"message-seconds", 1, 0, 'n'}, {"ack", 0, 0, 'a'},
        {"port", 1, 0, 'p'},        {"only", 1, 0, 'y'},          {"deadline", 1, 0, 'd'},
        {"watch", 1, 0, 'w'},       {0},
    };
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        switch (option) {
        case 'c': plan.connections = atol(optarg); break;
        case 's': plan.servers = atol(optarg); break;
        case 'm': plan.clients = atol(optarg); break;
        case 'o': plan.open_rate = atof(optarg); break;
        case 'h': plan.hold_s = atof(optarg); break;
        case 'r': plan.message_rate = atof(optarg); break;
        case 'n': plan.message_s = atof(optarg); break;
        case 'a': plan.ack = 1; break;
        case 'p': plan.port = atol(optarg); break;
        case 'w': read_watched(optarg); break;
        case 'd': plan.deadline_s = atol(optarg); break;
        case 'y':
            plan.server_only = !strcmp(optarg, "server");
            plan.client_only = !strcmp(optarg, "client");
            break;
        default: exit(64);
        }
    }
}

/* Raises the file limit as far as it goes and chooses how many processes hold the connections. */
static void fit_plan(void)
{
    struct rlimit files;
    long each, enough;
    if (getrlimit(RLIMIT_NOFILE, &files))
        fail("file limit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        fail("file limit");
    each = files.rlim_max * 0.9; /* SO_REUSEPORT spreads within a few per cent */
    enough = plan.connections / each + 1;
    enough = enough < 2 ? 2 : enough;
    plan.servers = plan.client_only ? 0 : plan.servers ? plan.servers : enough;
    plan.clients = plan.server_only ? 0 : plan.clients ? plan.clients : enough;
    if (plan.connections < (plan.server_only ? 0 : 1) || plan.servers > PROCESSES_MAX || plan.clients > PROCESSES_MAX) {
        fprintf(stderr, "epoll_pair: --connections N needs more than %d processes, or is missing\n", PROCESSES_MAX);
        exit(64);
    }
}

int main(int count, char **arguments)
{
    static int listeners[PROCESSES_MAX];
    struct sigaction action = {.sa_handler = stop};

    read_plan(count, arguments);
    fit_plan();
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("memory");
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    for (long i = 0; i < plan.servers; i++)
        listeners[i] = make_listener();
    for (long i = 0; i < plan.servers; i++)
        fork_end(&shared->servers[i], i, listeners);
    for (long i = 0; i < plan.servers; i++)
        close(listeners[i]);
    for (long i = 0; i < plan.clients; i++)
        fork_end(&shared->clients[i], i, (int[PROCESSES_MAX]){0});
    if (plan.server_only) {
        run_server();
    } else {
        alarm(plan.deadline_s + 10);
        run();
    }
    for (long i = 0; i < plan.servers; i++)
        kill(shared->servers[i].pid, SIGKILL);
    for (long i = 0; stopped && i < plan.clients; i++)
        kill(shared->clients[i].pid, SIGKILL);
    while (wait(NULL) > 0)
        ;
    return stopped && !plan.server_only;
}
