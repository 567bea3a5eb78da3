#include "reports.h"

#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utarray.h>
#include <uthash.h>
#include <utlist.h>

#define PLUGIN_VERSION "0.1.0"
#define MAX_IN_REPORT 500
#define MAX_WAITING 2000
#define MAX_EVENT_BYTES (512 * 1024) /* JSON may need six times as many, and authsvc reads at most 4 MB */
#define MAX_REPORTED_TOPIC 4008 /* more than the 1,000 characters that authsvc keeps, so that it knows of the rest */
#define MAX_REPORTED_NAME 1024 /* authsvc refuses a report with a longer username */

struct connection {
	long long number;
	char *username, *client_id, *address;
	const char *protocol;
	char credential[2];
	time_t since;
	bool is_in_flight, is_sent;
	struct connection *prev, *next;
	UT_hash_handle hh;
};

/* A login or a denial. */
struct event {
	char *username, *client_id, *topic, *reason;
	int access;
	struct event *prev, *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *boot, *name;
static long long generation;
static struct connection *connections; /* by number */
static struct connection *unsent, *sent;
static UT_array *ended; /* numbers of reported connections that ended */
static struct event *logins, *denials;
static unsigned login_count, denial_count;
static long long dropped;
static unsigned ended_in_flight, logins_in_flight, denials_in_flight;
static long long dropped_in_flight;

/* Returns a copy of at most `most` bytes that does not end within a UTF-8 character. */
static char *shortened(const char *text, size_t most)
{
	if(!text) return NULL;
	size_t length = strnlen(text, most + 1);
	if(length > most){
		length = most;
		while(length && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
	}
	return strndup(text, length);
}

static void connection_free(struct connection *connection)
{
	free(connection->username);
	free(connection->client_id);
	free(connection->address);
	free(connection);
}

static void event_free(struct event *event)
{
	free(event->username);
	free(event->client_id);
	free(event->topic);
	free(event->reason);
	free(event);
}

static struct event *event_new(const char *username, const char *client_id)
{
	struct event *event = calloc(1, sizeof(*event));
	if(event){
		event->username = shortened(username, MAX_REPORTED_NAME);
		event->client_id = shortened(client_id, MAX_REPORTED_NAME);
	}
	return event;
}

static unsigned drop_events(struct event **events, unsigned count)
{
	unsigned gone = 0;
	while(*events && gone < count){
		struct event *first = *events;
		DL_DELETE(*events, first);
		event_free(first);
		gone++;
	}
	return gone;
}

void reports_begin(const char *boot_, const char *name_)
{
	static const UT_icd number = {sizeof(long long), NULL, NULL, NULL};
	boot = boot_;
	name = name_;
	generation = 1;
	utarray_new(ended, &number);
}

void reports_end(void)
{
	struct connection *each, *next;
	HASH_ITER(hh, connections, each, next){
		HASH_DEL(connections, each);
		connection_free(each);
	}
	unsent = sent = NULL;
	login_count -= drop_events(&logins, login_count);
	denial_count -= drop_events(&denials, denial_count);
	ended_in_flight = logins_in_flight = denials_in_flight = 0;
	dropped = dropped_in_flight = 0;
	if(ended) utarray_free(ended);
	ended = NULL;
}

void reports_connected(long long number, const char *username, const char *client_id, const char *address,
		const char *protocol, char credential)
{
	struct connection *new = calloc(1, sizeof(*new));
	if(!new) return;
	new->number = number;
	new->username = shortened(username, MAX_REPORTED_NAME);
	new->client_id = shortened(client_id, MAX_REPORTED_NAME);
	new->address = shortened(address, MAX_REPORTED_NAME);
	new->protocol = protocol;
	new->credential[0] = credential;
	new->since = time(NULL);
	pthread_mutex_lock(&lock);
	HASH_ADD(hh, connections, number, sizeof(new->number), new);
	DL_APPEND(unsent, new);
	pthread_mutex_unlock(&lock);
}

void reports_disconnected(long long number)
{
	struct connection *gone;
	pthread_mutex_lock(&lock);
	HASH_FIND(hh, connections, &number, sizeof(number), gone);
	if(gone){
		HASH_DEL(connections, gone);
		if(gone->is_sent){
			DL_DELETE(sent, gone);
		}else{
			DL_DELETE(unsent, gone);
		}
		/* One that authsvc has not heard of need not be mentioned. */
		if(gone->is_sent || gone->is_in_flight) utarray_push_back(ended, &number);
		connection_free(gone);
	}
	pthread_mutex_unlock(&lock);
}

void reports_login(const char *username, const char *client_id)
{
	pthread_mutex_lock(&lock);
	struct event *event = login_count < MAX_WAITING ? event_new(username, client_id) : NULL;
	if(event){
		DL_APPEND(logins, event);
		login_count++;
	}
	pthread_mutex_unlock(&lock);
}

void reports_denial(const char *username, const char *client_id, const char *topic, int access, const char *reason)
{
	pthread_mutex_lock(&lock);
	struct event *event = denial_count < MAX_WAITING ? event_new(username, client_id) : NULL;
	if(event){
		event->topic = shortened(topic, MAX_REPORTED_TOPIC);
		event->reason = strdup(reason);
		event->access = access;
		DL_APPEND(denials, event);
		denial_count++;
	}else{
		dropped++;
	}
	pthread_mutex_unlock(&lock);
}

bool reports_pending(void)
{
	pthread_mutex_lock(&lock);
	bool pending = unsent || logins || denials || utarray_len(ended);
	pthread_mutex_unlock(&lock);
	return pending;
}

static void add_connected(cJSON *report)
{
	cJSON *list = cJSON_AddArrayToObject(report, "connected");
	struct connection *each;
	int count = 0;
	DL_FOREACH(unsent, each){
		if(count++ == MAX_IN_REPORT) break;
		each->is_in_flight = true;
		cJSON *client = cJSON_CreateObject();
		cJSON_AddNumberToObject(client, "id", (double)each->number);
		cJSON_AddStringToObject(client, "username", each->username);
		cJSON_AddStringToObject(client, "clientid", each->client_id);
		if(each->address){
			cJSON_AddStringToObject(client, "address", each->address);
		}else{
			cJSON_AddNullToObject(client, "address");
		}
		cJSON_AddStringToObject(client, "protocol", each->protocol);
		cJSON_AddNumberToObject(client, "since", (double)each->since);
		cJSON_AddStringToObject(client, "credential", each->credential);
		cJSON_AddItemToArray(list, client);
	}
}

static void add_disconnected(cJSON *report)
{
	cJSON *list = cJSON_AddArrayToObject(report, "disconnected");
	ended_in_flight = 0;
	while(ended_in_flight < utarray_len(ended) && ended_in_flight < MAX_IN_REPORT){
		const long long *number = utarray_eltptr(ended, ended_in_flight);
		cJSON_AddItemToArray(list, cJSON_CreateNumber((double)*number));
		ended_in_flight++;
	}
}

static unsigned add_events(cJSON *report, const char *key, const struct event *events)
{
	cJSON *list = cJSON_AddArrayToObject(report, key);
	const struct event *each;
	unsigned count = 0;
	size_t size = 0;
	DL_FOREACH(events, each){
		size += strlen(each->username) + (each->client_id ? strlen(each->client_id) : 0) + (each->topic ? strlen(each->topic) : 0);
		if(count == MAX_IN_REPORT || size > MAX_EVENT_BYTES) break;
		cJSON *event = cJSON_CreateObject();
		cJSON_AddStringToObject(event, "username", each->username);
		cJSON_AddStringToObject(event, "clientid", each->client_id ? each->client_id : "");
		if(each->reason){
			cJSON_AddStringToObject(event, "topic", each->topic ? each->topic : "");
			cJSON_AddNumberToObject(event, "access", each->access);
			cJSON_AddStringToObject(event, "reason", each->reason);
		}
		cJSON_AddItemToArray(list, event);
		count++;
	}
	return count;
}

char *reports_next(void)
{
	cJSON *report = cJSON_CreateObject();
	cJSON_AddStringToObject(report, "boot", boot);
	cJSON_AddStringToObject(report, "name", name);
	cJSON_AddStringToObject(report, "plugin", PLUGIN_VERSION);
	pthread_mutex_lock(&lock);
	cJSON_AddNumberToObject(report, "generation", (double)generation);
	add_connected(report);
	add_disconnected(report);
	logins_in_flight = add_events(report, "logins", logins);
	denials_in_flight = add_events(report, "denials", denials);
	dropped_in_flight = dropped;
	cJSON_AddNumberToObject(report, "dropped", (double)dropped);
	pthread_mutex_unlock(&lock);
	char *text = cJSON_PrintUnformatted(report);
	cJSON_Delete(report);
	return text;
}

/* Moves what was in flight to `sent`, or everything back to `unsent`. */
static void settle_connections(bool stored)
{
	struct connection *each, *next;
	if(!stored){
		DL_CONCAT(unsent, sent);
		sent = NULL;
		DL_FOREACH(unsent, each) each->is_in_flight = each->is_sent = false;
		return;
	}
	DL_FOREACH_SAFE(unsent, each, next){
		if(!each->is_in_flight) break;
		DL_DELETE(unsent, each);
		DL_APPEND(sent, each);
		each->is_in_flight = false;
		each->is_sent = true;
	}
}

void reports_sent(bool stored)
{
	pthread_mutex_lock(&lock);
	settle_connections(stored);
	if(stored){
		if(ended_in_flight) utarray_erase(ended, 0, ended_in_flight);
		login_count -= drop_events(&logins, logins_in_flight);
		denial_count -= drop_events(&denials, denials_in_flight);
		dropped -= dropped_in_flight;
	}else{
		generation++;
		utarray_clear(ended);
	}
	ended_in_flight = logins_in_flight = denials_in_flight = 0;
	dropped_in_flight = 0;
	pthread_mutex_unlock(&lock);
}
