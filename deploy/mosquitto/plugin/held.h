/* What the plugin holds: users, and the connections that have proved to be one of them.
 *
 * A connection is bound to the credential of its login. Whenever its user is replaced, or a credential expires, each
 * connection whose credential is no longer valid is marked as one to end.
 */

#ifndef AUTHSVC_HELD_H
#define AUTHSVC_HELD_H

#include <stdbool.h>
#include <time.h>
#include <uthash.h>

#include "user.h"

#define HELD_DIGEST_SIZE 32

struct client;

struct held {
	char *username;
	struct user *user;
	bool is_stale;        /* it changed, and is being fetched again */
	long long changed_at; /* the policy version that it must have at least */
	time_t next_expiry;
	/* The password that was verified last: its keyed digest, the credential that it was, the client id that sent it. */
	unsigned char digest[HELD_DIGEST_SIZE];
	char *verified_as, *verified_for;
	time_t minute;
	unsigned mismatches, known_mismatches;
	struct client *clients;
	struct held *prev, *next; /* the longest unused first */
	UT_hash_handle hh;
};

struct client {
	const void *pointer; /* Mosquitto's */
	long long number;
	struct held *held;
	char *credential;
	bool is_ending, is_kicked;
	struct client *prev, *next;         /* of the same user */
	struct client *end_prev, *end_next; /* to be ended */
	UT_hash_handle hh, hh_number;
};

/* Returns false if there is no randomness for the digests' key. */
bool held_begin(void);
void held_end(void);

struct held *held_find(const char *username);

/* Holds a user in place of the one before, which it owns from now on. Returns NULL without memory. */
struct held *held_put(struct user *user);

/* Remembers a verified password, or returns whether it is the one that was verified last and still counts. */
void held_remember_password(struct held *held, const char *password, const char *credential, const char *client_id);
const char *held_verified(struct held *held, const char *password, const char *client_id, time_t now);

/* The connections. `client_add` replaces an earlier one at the same pointer. */
struct client *client_find(const void *pointer);
struct client *client_add(const void *pointer, struct held *held, const char *credential);
long long client_remove(const void *pointer); /* returns its number, 0 if there was none */
void client_end(long long number);
struct client *client_next_to_end(void); /* takes it off the list of those to end */

/* Marks connections with an expired credential. */
void held_check_expiry(time_t now);

/* Users that changed: those named, those that have one of the roles, or all if both lists are NULL. Takes the lists. */
void held_changed(char **usernames, char **roles, long long version);

/* Asks the service again about some of the users that changed; returns whether there are more. */
bool held_refetch_some(void);

#endif
