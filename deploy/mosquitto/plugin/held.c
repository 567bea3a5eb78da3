#include "held.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "service.h"

/* Beyond this number, users without a connection are forgotten, the longest unused first. */
#define MAX_HELD 100000
#define MAX_LOOKED_AT 100
/* How many users one call of held_refetch_some looks at. */
#define SLICE 2000
/* Other passwords a minute, beyond which memory no longer says whether a password is right: authsvc then does, which
 * limits guesses. The second limit is for the client id that logged in last, as in authsvc. */
#define MAX_MISMATCHES 10
#define MAX_KNOWN_MISMATCHES 300

/* Users that changed. */
struct change {
	char **roles; /* NULL: all users */
	long long version;
	struct held *at; /* the next one to look at */
	bool begun;
	struct change *prev, *next;
};

static struct held *users, *by_use;
static struct client *clients, *numbers, *to_end;
static struct change *changes;
static long long last_number, changed_version;
static unsigned char digest_key[HELD_DIGEST_SIZE];

bool held_begin(void)
{
	last_number = changed_version = 0;
	return RAND_bytes(digest_key, sizeof(digest_key)) == 1;
}

static void free_names(char **names)
{
	for(char **each = names; each && *each; each++) free(*each);
	free(names);
}

static void change_done(struct change *change)
{
	DL_DELETE(changes, change);
	free_names(change->roles);
	free(change);
}

static void forget_password(struct held *held)
{
	free(held->verified_as);
	free(held->verified_for);
	held->verified_as = held->verified_for = NULL;
	OPENSSL_cleanse(held->digest, sizeof(held->digest));
}

static void forget(struct held *held)
{
	if(changes && changes->at == held) changes->at = held->hh.next;
	HASH_DEL(users, held);
	DL_DELETE(by_use, held);
	forget_password(held);
	user_free(held->user);
	free(held->username);
	free(held);
}

void held_end(void)
{
	struct client *client, *next_client;
	HASH_ITER(hh, clients, client, next_client) client_remove(client->pointer);
	struct held *held, *next_held;
	HASH_ITER(hh, users, held, next_held) forget(held);
	while(changes) change_done(changes);
	OPENSSL_cleanse(digest_key, sizeof(digest_key));
}

/* Users. */

struct held *held_find(const char *username)
{
	struct held *held;
	HASH_FIND_STR(users, username, held);
	return held;
}

static void used(struct held *held)
{
	DL_DELETE(by_use, held);
	DL_APPEND(by_use, held);
}

static void make_room(void)
{
	if(HASH_COUNT(users) < MAX_HELD) return;
	struct held *each = by_use;
	for(int looked_at = 0; each && looked_at < MAX_LOOKED_AT; looked_at++, each = each->next){
		if(!each->clients){
			forget(each);
			return;
		}
	}
}

static struct held *held_new(const char *username)
{
	make_room();
	struct held *held = calloc(1, sizeof(*held));
	if(!held || !(held->username = strdup(username))){
		free(held);
		return NULL;
	}
	HASH_ADD_KEYPTR(hh, users, held->username, strlen(held->username), held);
	DL_APPEND(by_use, held);
	return held;
}

static void end(struct client *client)
{
	if(client->is_ending) return;
	client->is_ending = true;
	DL_APPEND2(to_end, client, end_prev, end_next);
}

/* Marks the connections of a user whose credential is not valid, and notes when to look again. */
static void end_invalid(struct held *held, time_t now)
{
	struct client *each;
	DL_FOREACH(held->clients, each){
		if(!user_has_credential(held->user, each->credential, now)) end(each);
	}
	if(held->verified_as && !user_has_credential(held->user, held->verified_as, now)) forget_password(held);
	held->next_expiry = user_next_expiry(held->user, now);
}

struct held *held_put(struct user *user)
{
	struct held *held = held_find(user->username);
	if(!held && (held = held_new(user->username))) held->changed_at = changed_version;
	if(!held){
		user_free(user);
		return NULL;
	}
	bool is_current = (long long)user->version >= held->changed_at;
	if(held->user && user->version < held->user->version && !is_current){
		user_free(user); /* an answer that was overtaken */
		return held;
	}
	user_free(held->user);
	held->user = user;
	held->is_stale = !is_current;
	end_invalid(held, time(NULL));
	/* The process that answered may not have read a change yet of which another one told us. */
	if(!is_current) service_refetch(held->username, held->changed_at);
	return held;
}

/* Passwords. */

static void digest(const struct held *held, const char *password, unsigned char out[HELD_DIGEST_SIZE])
{
	unsigned char key[HELD_DIGEST_SIZE];
	HMAC(EVP_sha256(), digest_key, sizeof(digest_key), (const unsigned char *)held->username, strlen(held->username),
			key, NULL);
	HMAC(EVP_sha256(), key, sizeof(key), (const unsigned char *)password, strlen(password), out, NULL);
	OPENSSL_cleanse(key, sizeof(key));
}

void held_remember_password(struct held *held, const char *password, const char *credential, const char *client_id)
{
	forget_password(held);
	digest(held, password, held->digest);
	held->verified_as = strdup(credential);
	held->verified_for = strdup(client_id);
	used(held);
}

const char *held_verified(struct held *held, const char *password, const char *client_id, time_t now)
{
	if(!held->verified_as || !held->verified_for || held->is_stale) return NULL;
	if(!user_has_credential(held->user, held->verified_as, now)) return NULL;
	if(now / 60 != held->minute){
		held->minute = now / 60;
		held->mismatches = held->known_mismatches = 0;
	}
	bool is_known = !strcmp(held->verified_for, client_id);
	unsigned *mismatches = is_known ? &held->known_mismatches : &held->mismatches;
	if(*mismatches >= (is_known ? MAX_KNOWN_MISMATCHES : MAX_MISMATCHES)) return NULL;
	unsigned char offered[HELD_DIGEST_SIZE];
	digest(held, password, offered);
	if(CRYPTO_memcmp(offered, held->digest, sizeof(offered))){
		(*mismatches)++;
		return NULL;
	}
	char *copy = is_known ? NULL : strdup(client_id);
	if(copy){
		free(held->verified_for);
		held->verified_for = copy;
	}
	used(held);
	return held->verified_as;
}

/* Connections. */

struct client *client_find(const void *pointer)
{
	struct client *client;
	HASH_FIND_PTR(clients, &pointer, client);
	return client;
}

struct client *client_add(const void *pointer, struct held *held, const char *credential)
{
	client_remove(pointer);
	struct client *client = calloc(1, sizeof(*client));
	if(!client || !(client->credential = strdup(credential))){
		free(client);
		return NULL;
	}
	client->pointer = pointer;
	client->held = held;
	client->number = ++last_number;
	HASH_ADD_PTR(clients, pointer, client);
	HASH_ADD(hh_number, numbers, number, sizeof(client->number), client);
	DL_APPEND(held->clients, client);
	return client;
}

long long client_remove(const void *pointer)
{
	struct client *client = client_find(pointer);
	if(!client) return 0;
	long long number = client->number;
	HASH_DEL(clients, client);
	HASH_DELETE(hh_number, numbers, client);
	DL_DELETE(client->held->clients, client);
	if(client->is_ending) DL_DELETE2(to_end, client, end_prev, end_next);
	free(client->credential);
	free(client);
	return number;
}

void client_end(long long number)
{
	struct client *client;
	HASH_FIND(hh_number, numbers, &number, sizeof(number), client);
	if(client) end(client);
}

struct client *client_next_to_end(void)
{
	struct client *client = to_end;
	if(client){
		DL_DELETE2(to_end, client, end_prev, end_next);
		client->is_ending = false;
	}
	return client;
}

/* Changes. */

void held_check_expiry(time_t now)
{
	struct held *held, *next;
	HASH_ITER(hh, users, held, next){
		if(held->next_expiry && held->next_expiry <= now) end_invalid(held, now);
	}
}

static void refetch(struct held *held, long long version)
{
	held->is_stale = true;
	held->changed_at = version;
	service_refetch(held->username, version);
}

void held_changed(char **usernames, char **roles, long long version)
{
	changed_version = version;
	for(char **each = usernames; each && *each; each++){
		struct held *held = held_find(*each);
		if(held) refetch(held, version);
	}
	struct change *change = roles && !*roles ? NULL : roles || !usernames ? calloc(1, sizeof(*change)) : NULL;
	free_names(usernames);
	if(!change){
		free_names(roles);
		return;
	}
	change->roles = roles;
	change->version = version;
	DL_APPEND(changes, change);
}

static bool has_one_of(const struct user *user, char **roles)
{
	for(char **role = roles; *role; role++){
		for(size_t i = 0; i < user->roles.count; i++){
			if(!strcmp(user->roles.items[i], *role)) return true;
		}
	}
	return false;
}

bool held_refetch_some(void)
{
	struct change *change = changes;
	if(!change) return false;
	if(!change->begun){
		change->begun = true;
		change->at = users;
	}
	for(int count = 0; change->at && count < SLICE; count++, change->at = change->at->hh.next){
		struct held *held = change->at;
		if(!change->roles || has_one_of(held->user, change->roles)) refetch(held, change->version);
	}
	if(!change->at) change_done(change);
	return changes != NULL;
}
