/* Installed set-user-id root: its output tells whether no_new_privs held. critest reads it. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %u\n", (unsigned)geteuid());
	return 0;
}
