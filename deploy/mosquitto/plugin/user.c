#include "user.h"

#include <stdlib.h>
#include <string.h>

#define MAX_ENTRIES 100000
#define MAX_BYTES 65535
#define MAX_INTEGER 9007199254740991.0 /* cJSON keeps numbers as doubles, which hold integers exactly up to here */

/* Returns a copy of a JSON string, NULL if it is none, too long or if there is no memory. */
static char *copy_string(const char *text)
{
	return text && strnlen(text, MAX_BYTES + 1) <= MAX_BYTES ? strdup(text) : NULL;
}

/* Returns a JSON number, which must be an integer and at least `least`; -1 if it is not. */
static int64_t integer(const cJSON *json, double least)
{
	if (!cJSON_IsNumber(json) || !(json->valuedouble >= least && json->valuedouble <= MAX_INTEGER))
		return -1;
	int64_t value = (int64_t)json->valuedouble;
	return (double)value == json->valuedouble ? value : -1;
}

/* Returns the number of entries, -1 if there are too many. */
static int entry_count(const cJSON *json)
{
	int count = cJSON_GetArraySize(json);

	return count <= MAX_ENTRIES ? count : -1;
}

static bool parse_strings(struct strings *strings, const cJSON *json)
{
	int count = entry_count(json);
	const cJSON *entry;

	if (!cJSON_IsArray(json) || count < 0)
		return false;
	if (!count)
		return true;
	strings->items = calloc((size_t)count, sizeof(*strings->items));
	if (!strings->items)
		return false;
	cJSON_ArrayForEach(entry, json)
		if (!(strings->items[strings->count++] = copy_string(cJSON_GetStringValue(entry))))
			return false;
	return true;
}

static bool parse_credentials(struct user *user, const cJSON *json)
{
	int count = entry_count(json);
	const cJSON *entry;

	if (!cJSON_IsObject(json) || count < 0)
		return false;
	if (!count)
		return true;
	user->credentials = calloc((size_t)count, sizeof(*user->credentials));
	if (!user->credentials)
		return false;
	cJSON_ArrayForEach(entry, json) {
		struct credential *credential = &user->credentials[user->credential_count++];
		credential->id = copy_string(entry->string);
		/* At least 1, because 0 stands for null, which never ends. */
		credential->until = cJSON_IsNull(entry) ? 0 : integer(entry, 1);
		if (!credential->id || credential->until < 0)
			return false;
	}
	return true;
}

static bool parse_rules(struct user *user, const cJSON *json)
{
	const cJSON *entry;

	user->rules = ruleset_new();
	if (!user->rules || !cJSON_IsArray(json) || entry_count(json) < 0)
		return false;
	cJSON_ArrayForEach(entry, json)
		if (!cJSON_IsString(entry) || !ruleset_add(user->rules, entry->valuestring))
			return false;
	ruleset_trim(user->rules);
	return true;
}

static bool parse_refused(struct user *user, const cJSON *json)
{
	static const enum reason refusals[] = {
		REASON_UNKNOWN_USER, REASON_USER_DISABLED, REASON_DAMAGED_POLICY, REASON_POLICY_NOT_LOADED};

	user->refused = REASON_PERMISSION;
	if (cJSON_IsNull(json))
		return true;
	for (size_t i = 0; cJSON_IsString(json) && i < sizeof(refusals) / sizeof(*refusals); i++)
		if (!strcmp(json->valuestring, reason_text(refusals[i]))) {
			user->refused = refusals[i];
			return true;
		}
	return false;
}

static bool parse_version(struct user *user, const cJSON *json)
{
	int64_t version = integer(json, 0);

	user->version = (uint64_t)version;
	return version >= 0;
}

static const cJSON *member(const cJSON *json, const char *name)
{
	return cJSON_GetObjectItemCaseSensitive(json, name);
}

struct user *user_parse(const cJSON *json)
{
	struct user *user = calloc(1, sizeof(*user));

	if (!user)
		return NULL;
	user->username = copy_string(cJSON_GetStringValue(member(json, "username")));
	if (user->username && parse_version(user, member(json, "version")) &&
		parse_refused(user, member(json, "refused")) && parse_credentials(user, member(json, "credentials")) &&
		parse_strings(&user->client_ids, member(json, "clientIds")) && parse_rules(user, member(json, "rules")) &&
		parse_strings(&user->roles, member(json, "roles")))
		return user;
	user_free(user);
	return NULL;
}

static void free_strings(struct strings *strings)
{
	for (size_t i = 0; i < strings->count; i++)
		free(strings->items[i]);
	free(strings->items);
}

void user_free(struct user *user)
{
	if (!user)
		return;
	for (size_t i = 0; i < user->credential_count; i++)
		free(user->credentials[i].id);
	free(user->credentials);
	free_strings(&user->client_ids);
	free_strings(&user->roles);
	ruleset_free(user->rules);
	free(user->username);
	free(user);
}

static bool is_valid(const struct credential *credential, time_t now)
{
	return !credential->until || credential->until > now;
}

bool user_has_credential(const struct user *user, const char *id, time_t now)
{
	if (user->refused != REASON_PERMISSION)
		return false;
	for (size_t i = 0; i < user->credential_count; i++)
		if (is_valid(&user->credentials[i], now) && !strcmp(user->credentials[i].id, id))
			return true;
	return false;
}

time_t user_next_expiry(const struct user *user, time_t now)
{
	time_t next = 0;

	for (size_t i = 0; i < user->credential_count; i++) {
		time_t until = user->credentials[i].until;
		if (until > now && (!next || until < next))
			next = until;
	}
	return next;
}

enum reason user_decide(const struct user *user, const char *client_id, int access, const char *topic)
{
	if (user->refused != REASON_PERMISSION)
		return user->refused;
	if (!client_id_allowed((const char *const *)user->client_ids.items, user->client_ids.count, user->username,
			client_id))
		return REASON_CLIENT_ID_NOT_ALLOWED;
	return ruleset_decide(user->rules, access, topic, user->username, client_id);
}
