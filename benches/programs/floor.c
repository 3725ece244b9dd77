/* floor COMMAND...: the least that an init can be: fork, exec, wait. */
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **words)
{
    pid_t child = fork(), ended;
    int status = 0;
    if (child == 0) {
        execv(words[count > 1], words + 1);
        _exit(127);
    }
    while ((ended = wait(&status)) != child && ended != -1)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
