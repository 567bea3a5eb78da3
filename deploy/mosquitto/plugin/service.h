/* The connection to authsvc.
 *
 * The broker's thread asks for a login, for one user, or in fallback mode for one access, and waits for the answer. All
 * else goes through a background thread: it holds the stream of changes, fetches users again and sends reports. The
 * two exchange messages; the background thread calls no function of the broker.
 */

#ifndef AUTHSVC_SERVICE_H
#define AUTHSVC_SERVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "settings.h"
#include "user.h"

#define SERVICE_REASON_SIZE 64


enum service_state {
	SERVICE_STARTING, /* not reached yet */
	SERVICE_UP,
	SERVICE_DOWN,
	SERVICE_FALLBACK, /* reached, but it does not speak our protocol: each question is asked */
};

enum service_answer { SERVICE_YES, SERVICE_NO, SERVICE_NONE };

/* The answer to a login. `credential` and `user` are NULL in fallback mode; the caller frees both. */
struct service_login {
	char reason[SERVICE_REASON_SIZE];
	char *credential;
	struct user *user;
};

/* A message of the background thread; service_message_free frees what it points to. */
struct service_message {
	enum { MESSAGE_USER, MESSAGE_CHANGE, MESSAGE_EVERYTHING, MESSAGE_DISCONNECT, MESSAGE_LOG } kind;
	struct user *user;  /* MESSAGE_USER: a user that was fetched */
	char **usernames;   /* MESSAGE_CHANGE: users and roles that changed, each list ends with NULL */
	char **roles;
	long long version;  /* MESSAGE_CHANGE, MESSAGE_EVERYTHING */
	long long number;   /* MESSAGE_DISCONNECT: a connection to end */
	int level;          /* MESSAGE_LOG */
	char *text;
	struct service_message *next;
};

/* Starts the background thread; returns false if that is not possible. Keeps the settings until service_stop. */
bool service_start(const struct settings *settings);
void service_stop(void);

enum service_state service_state(void);

/* Returns the seconds since the service was last heard of; a large number before the first time. */
double service_silence(void);

/* Asks for a login. At most two seconds; SERVICE_NONE at once while the service is away. */
enum service_answer service_login(const char *username, const char *password, const char *client_id,
		const char *address, struct service_login *answer);

/* Returns a user, or NULL without an answer. The service describes an unknown user too. */
struct user *service_fetch(const char *username);

/* Asks for one access, in fallback mode. */
enum service_answer service_ask_access(const char *username, const char *client_id, const char *topic, int access);

/* Returns the oldest message of the background thread, or NULL. Without one it costs one atomic read. */
struct service_message *service_next_message(void);
void service_message_free(struct service_message *message);

/* The following hand something to the background thread and return at once. */

/* Fetches a user until its version is at least `version`. */
void service_refetch(const char *username, long long version);
void service_report_connected(long long number, const char *username, const char *client_id, const char *address,
		const char *protocol, char credential);
void service_report_disconnected(long long number);
void service_report_login(const char *username, const char *client_id);
void service_report_denial(const char *username, const char *client_id, const char *topic, int access,
		const char *reason);

#endif
