/* A service: tells through the FIFO that BENCH_UP names its process id and the time (CLOCK_MONOTONIC, in ns), and sleeps. It
 * keeps the FIFO open, so that its end can be heard. Without words: s6 and runit execute it as `run`. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(void)
{
    const char *path = getenv("BENCH_UP");
    int fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    struct timespec now;
    char line[64];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%d %lld\n", getpid(), now.tv_sec * 1000000000LL + now.tv_nsec);
    if (fd == -1 || write(fd, line, length) != length)
        return 1;
    for (;;)
        pause();
}
