/* A program that a task runs on another architecture: it says what it runs on, and ends with the code that it is given.
 * It notes each of its runs in a file, and where it is given one more, it waits until that is there. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

int main(int count, char **arguments) {
    struct utsname name;
    if (count < 3 || uname(&name) != 0) return 99;
    FILE *runs = fopen(arguments[2], "a");
    if (runs == NULL || fputs("run\n", runs) < 0 || fclose(runs) != 0) return 98;
    puts(name.machine);
    fflush(stdout);
    while (count > 3 && access(arguments[3], F_OK) != 0) usleep(20000);
    return atoi(arguments[1]);
}
