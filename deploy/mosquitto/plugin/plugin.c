/* Mosquitto's callbacks: who may log in, what a client may do, and which connections have to end.
 *
 * All of this runs in the broker's thread. Decisions use only what is held in memory; the service is waited for in a
 * login whose password is not known, and in the first question of a client whose login Mosquitto did not ask about.
 */

#define _GNU_SOURCE /* RTLD_DEFAULT */

#if __has_include(<mosquitto/broker_plugin.h>)
#define IS_BUILT_FOR_2_1 true
#include <mosquitto/broker.h>
#include <mosquitto/broker_plugin.h>
#else
#define IS_BUILT_FOR_2_1 false
#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>
#endif

#include <dlfcn.h>
#include <openssl/bn.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "held.h"
#include "service.h"
#include "settings.h"

#define CREDENTIAL_SIZE 80
/* How long one call may work on changes, so that no client waits for them. */
#define WORK_NS 10000000L
/* The longest time between two calls of on_tick in Mosquitto 2.1. In Mosquitto 2.0 it is 100 ms. */
#define TICK_MS 20
/* How long fetches of users who are not connected may block the broker: at once, and per second after that. */
#define FETCH_SECONDS 0.25
#define FETCH_REFILL 0.02
#define PER_LISTENER "authsvc: per_listener_settings true is not supported, because Mosquitto then does not let a plugin " \
		"end connections. Remove that line; one plugin line serves all listeners."

static mosquitto_plugin_id_t *identifier;
static struct settings settings;
static bool is_reloading, has_ticked;
static const struct mosquitto *kicked; /* whose connection is being ended */
static const struct mosquitto *left;   /* whose connection has ended since the last tick */
static double fetch_budget = FETCH_SECONDS, fetch_budget_at;
static time_t expiry_checked_at;

static void note_denial(const struct mosquitto *client, const char *username, const char *topic, int access,
		enum reason reason)
{
	const char *client_id = mosquitto_client_id(client);
	service_report_denial(username, client_id ? client_id : "", topic, access, reason_text(reason));
}

/* Holds what the service says of a user. */
static struct held *put(struct user *user)
{
	struct held *held = held_put(user);
	if(held) mosquitto_log_printf(MOSQ_LOG_DEBUG, "authsvc: user %s at version %llu", held->username,
			(unsigned long long)held->user->version);
	return held;
}

/* Returns whether what is held may be used: authsvc answered not too long ago. */
static bool is_known(void)
{
	enum service_state state = service_state();
	return state == SERVICE_UP || (state == SERVICE_DOWN && service_silence() < (double)settings.offline_seconds);
}

static const char *protocol_of(const struct mosquitto *client)
{
	int version = mosquitto_client_protocol_version(client);
	return version == 5 ? "MQTT 5.0" : version == 4 ? "MQTT 3.1.1" : version == 3 ? "MQTT 3.1" : "unknown";
}

static struct client *connected(struct mosquitto *client, struct held *held, const char *credential)
{
	const char *client_id = mosquitto_client_id(client);
	struct client *new = client_add(client, held, credential);
	if(new){
		service_report_connected(new->number, held->username, client_id ? client_id : "",
				mosquitto_client_address(client), protocol_of(client), credential[0]);
	}
	return new;
}

/* Login. */

/* Checks the client id of a user who has proved to be one, as the service does after the credentials. */
static int allow_client(struct mosquitto *client, struct held *held, const char *credential)
{
	const char *client_id = mosquitto_client_id(client);
	const struct user *user = held->user;
	if(!client_id_allowed((const char *const *)user->client_ids.items, user->client_ids.count, user->username,
			client_id)){
		note_denial(client, user->username, "", 0, REASON_CLIENT_ID_NOT_ALLOWED);
		return MOSQ_ERR_AUTH;
	}
	return connected(client, held, credential) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
}

/* Mosquitto 2.0 serves websockets between a reload and the next tick: a client that connects just then is a new one. */
static bool is_new(const struct mosquitto *client)
{
	return !client_find(client) && mosquitto_client_protocol(client) == mp_websockets;
}

/* While the broker reloads it asks again for every client and session: nobody who may stay is asked for a password. */
static int check_again(const struct mosquitto *client, const char *username)
{
	struct client *known = client_find(client);
	if(known) return user_has_credential(known->held->user, known->credential, time(NULL)) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
	/* A session without a connection gets nothing by this; when its client returns, it has to log in. */
	struct held *held = held_find(username);
	return held && held->user->refused != REASON_PERMISSION ? MOSQ_ERR_AUTH : MOSQ_ERR_SUCCESS;
}

static int ask_for_login(struct mosquitto *client, const char *username, const char *password)
{
	const char *client_id = mosquitto_client_id(client);
	struct service_login login;
	enum service_answer said = service_login(username, password, client_id ? client_id : "",
			mosquitto_client_address(client), &login);
	if(said != SERVICE_YES){
		mosquitto_log_printf(MOSQ_LOG_INFO, "authsvc: login of %s refused: %s", username,
				said == SERVICE_NO ? login.reason : "no answer");
		return MOSQ_ERR_AUTH;
	}
	if(!login.user) return MOSQ_ERR_SUCCESS; /* fallback: each access is asked for */
	struct held *held = put(login.user);
	int result = MOSQ_ERR_AUTH;
	if(held && user_has_credential(held->user, login.credential, time(NULL))){
		held_remember_password(held, password, login.credential, client_id ? client_id : "");
		result = allow_client(client, held, login.credential);
	}
	free(login.credential);
	return result;
}

static int on_login(int event, void *data, void *unused)
{
	(void)event, (void)unused;
	struct mosquitto_evt_basic_auth *login = data;
	if(!has_ticked){
		mosquitto_log_printf(MOSQ_LOG_ERR, PER_LISTENER);
		return MOSQ_ERR_AUTH;
	}
	if(!login->username) return MOSQ_ERR_AUTH;
	if(is_reloading && !is_new(login->client)) return check_again(login->client, login->username);
	if(!login->password) return MOSQ_ERR_AUTH;
	struct held *held = held_find(login->username);
	if(held && is_known()){
		const char *client_id = mosquitto_client_id(login->client);
		const char *credential = held_verified(held, login->password, client_id ? client_id : "", time(NULL));
		if(credential){
			int result = allow_client(login->client, held, credential);
			if(result == MOSQ_ERR_SUCCESS) service_report_login(login->username, client_id ? client_id : "");
			return result;
		}
	}
	return ask_for_login(login->client, login->username, login->password);
}

/* Access. */

/* Writes "c:" and the serial of a certificate in upper-case hexadecimal; returns false without a certificate. */
static bool certificate_of(const struct mosquitto *client, char credential[CREDENTIAL_SIZE])
{
	X509 *certificate = mosquitto_client_certificate(client);
	if(!certificate) return false;
	BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
	char *text = serial ? BN_bn2hex(serial) : NULL;
	const char *digits = text;
	while(digits && digits[0] == '0' && digits[1]) digits++;
	snprintf(credential, CREDENTIAL_SIZE, "c:%.70s", digits ? digits : "");
	OPENSSL_free(text);
	BN_free(serial);
	X509_free(certificate);
	return true;
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Returns what the service says of a user now; waits for it, and counts that towards the budget. */
static struct held *fetched(const char *username)
{
	double began = seconds();
	struct user *user = service_fetch(username);
	fetch_budget -= seconds() - began;
	return user ? put(user) : NULL;
}

static bool may_fetch(void)
{
	double now = seconds();
	fetch_budget += (now - fetch_budget_at) * FETCH_REFILL;
	if(fetch_budget > FETCH_SECONDS) fetch_budget = FETCH_SECONDS;
	fetch_budget_at = now;
	return fetch_budget > 0;
}

/* Returns a user, which it fetches if it is not held. After a restart of the broker Mosquitto asks about many users who
 * are not connected, for retained messages and restored sessions: beyond the budget these are fetched in the background
 * and denied until then. */
static struct held *held_or_fetched(const char *username, bool is_connected)
{
	struct held *held = held_find(username);
	if(held) return held;
	if(may_fetch() || is_connected) return fetched(username);
	service_refetch(username, 0);
	return NULL;
}

/* Returns whether a certificate is one of the user's. One that is not known may have been issued a moment ago. */
static bool is_valid(struct held **held, const char *credential)
{
	time_t now = time(NULL);
	if(user_has_credential((*held)->user, credential, now)) return true;
	if(!may_fetch()) return false;
	struct held *fresh = fetched((*held)->username);
	if(fresh) *held = fresh;
	return fresh && user_has_credential(fresh->user, credential, now);
}

static enum reason decide(struct mosquitto *client, const struct client *known, const char *username, int access,
		const char *topic)
{
	const char *client_id = mosquitto_client_id(client);
	char credential[CREDENTIAL_SIZE];
	/* Mosquitto does not ask about the login of a client with a certificate. Without one it is a session that is not
	 * connected, or a client that proved its name to Mosquitto by a pre-shared key. Newer versions of Mosquitto publish
	 * a will after on_disconnect. */
	bool by_certificate = !known && client != left && certificate_of(client, credential);
	struct held *held = known ? known->held : held_or_fetched(username, by_certificate);
	if(!held) return REASON_POLICY_NOT_LOADED;
	if(by_certificate && held->user->refused == REASON_PERMISSION){
		if(!is_valid(&held, credential)) return REASON_NO_VALID_CERTIFICATE;
		connected(client, held, credential);
	}
	return user_decide(held->user, client_id ? client_id : "", access, topic);
}

static int on_access(int event, void *data, void *unused)
{
	(void)event, (void)unused;
	struct mosquitto_evt_acl_check *asked = data;
	const char *username = mosquitto_client_username(asked->client);
	if(asked->access == MOSQ_ACL_UNSUBSCRIBE) return MOSQ_ERR_SUCCESS;
	/* Debian's Mosquitto removes denied subscriptions from the session of a client that is kicked. They are to survive:
	 * what the client receives later is decided then. */
	if(asked->client == kicked && asked->access != MOSQ_ACL_WRITE) return MOSQ_ERR_SUCCESS;
	if(!username || !has_ticked) return MOSQ_ERR_ACL_DENIED;
	if(service_state() == SERVICE_FALLBACK){
		const char *client_id = mosquitto_client_id(asked->client);
		return service_ask_access(username, client_id, asked->topic, asked->access) == SERVICE_YES ? MOSQ_ERR_SUCCESS
				: MOSQ_ERR_ACL_DENIED;
	}
	if(!is_known() && service_state() != SERVICE_STARTING) return MOSQ_ERR_ACL_DENIED;
	const struct client *known = client_find(asked->client);
	/* A connection over websockets lives on until it is written to. The will is decided within the kick. */
	if(known && known->is_kicked && asked->client != kicked) return MOSQ_ERR_ACL_DENIED;
	enum reason reason = decide(asked->client, known, username, asked->access, asked->topic);
	if(reason == REASON_PERMISSION) return MOSQ_ERR_SUCCESS;
	note_denial(asked->client, username, asked->topic, asked->access, reason);
	return MOSQ_ERR_ACL_DENIED;
}

/* Changes. */

static int on_disconnect(int event, void *data, void *unused)
{
	(void)event, (void)unused;
	struct mosquitto_evt_disconnect *disconnect = data;
	left = disconnect->client;
	long long number = client_remove(disconnect->client);
	if(number) service_report_disconnected(number);
	return MOSQ_ERR_SUCCESS;
}

static void handle(struct service_message *message)
{
	switch(message->kind){
		case MESSAGE_USER:
			put(message->user);
			message->user = NULL;
			break;
		case MESSAGE_CHANGE:
		case MESSAGE_EVERYTHING:
			held_changed(message->usernames, message->roles, message->version);
			message->usernames = message->roles = NULL;
			break;
		case MESSAGE_DISCONNECT:
			client_end(message->number);
			break;
		case MESSAGE_LOG:
			mosquitto_log_printf(message->level, "%s", message->text ? message->text : "");
			break;
	}
	service_message_free(message);
}

/* Ends one connection. Mosquitto calls on_disconnect, and on_access for its subscriptions, within this. */
static void kick(struct client *client)
{
	const char *client_id = mosquitto_client_id(client->pointer);
	char *copy = client_id ? strdup(client_id) : NULL;
	if(!copy) return;
	mosquitto_log_printf(MOSQ_LOG_NOTICE, "authsvc: disconnecting %s of %s", copy, client->held->username);
	kicked = client->pointer;
	client->is_kicked = true;
	mosquitto_kick_client_by_clientid(copy, true);
	kicked = NULL;
	free(copy);
}

static bool has_time(const struct timespec *began)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - began->tv_sec) * 1000000000L + now.tv_nsec - began->tv_nsec < WORK_NS;
}

/* Lets the broker call on_tick in each round of its main loop. Mosquitto 2.0 does that by itself. Mosquitto 2.1.2 ends
 * its sleep after next_ms, but only if it has just called on_tick; a call is due next_ms after now_s, which is set to the
 * past so that it always is. */
static void prepare_next_tick(struct mosquitto_evt_tick *tick)
{
#if IS_BUILT_FOR_2_1
	tick->now_s = 0;
	tick->next_ms = TICK_MS;
#else
	(void)tick;
#endif
}

static int on_tick(int event, void *data, void *unused)
{
	(void)event, (void)unused;
	struct timespec began;
	struct service_message *message;
	struct client *client;
	has_ticked = true;
	left = NULL; /* Mosquitto frees connections only after a tick */
	is_reloading = false; /* Mosquitto reloads between two ticks */
	prepare_next_tick(data);
	clock_gettime(CLOCK_MONOTONIC, &began);
	if(began.tv_sec != expiry_checked_at){
		expiry_checked_at = began.tv_sec;
		held_check_expiry(time(NULL));
	}
	while(has_time(&began) && (message = service_next_message())) handle(message);
	while(has_time(&began) && held_refetch_some());
	while(has_time(&began) && (client = client_next_to_end())) kick(client);
	return MOSQ_ERR_SUCCESS;
}

static int on_reload(int event, void *data, void *unused)
{
	(void)event, (void)data, (void)unused;
	is_reloading = true;
	/* Mosquitto 2.0 tells other plugins only after a "defer"; Mosquitto 2.1 tells all, and ends if one does not succeed. */
	return IS_BUILT_FOR_2_1 ? MOSQ_ERR_SUCCESS : MOSQ_ERR_PLUGIN_DEFER;
}

/* Begin and end. */

static const struct {
	int event;
	MOSQ_FUNC_generic_callback function;
} callbacks[] = {
	{MOSQ_EVT_RELOAD, on_reload},
	{MOSQ_EVT_ACL_CHECK, on_access},
	{MOSQ_EVT_BASIC_AUTH, on_login},
	{MOSQ_EVT_TICK, on_tick},
	{MOSQ_EVT_DISCONNECT, on_disconnect},
#if IS_BUILT_FOR_2_1
	{MOSQ_EVT_CLIENT_OFFLINE, on_disconnect}, /* of a session that does not end; its data begin like those of the other */
#endif
};
#define CALLBACK_COUNT (sizeof(callbacks) / sizeof(*callbacks))

/* Returns whether this broker is Mosquitto 2.1 or later, which has this function. */
static bool is_2_1(void)
{
	return dlsym(RTLD_DEFAULT, "mosquitto_complete_basic_auth") != NULL;
}

static bool set_up(struct mosquitto_opt *options, int count)
{
	char error[SETTINGS_ERROR_SIZE];
	if(is_2_1() != IS_BUILT_FOR_2_1){
		mosquitto_log_printf(MOSQ_LOG_ERR, "authsvc: the plugin was built for Mosquitto %s; build it with the header files "
				"of this Mosquitto", IS_BUILT_FOR_2_1 ? "2.1" : "2.0");
		return false;
	}
	settings_begin(&settings);
	for(int i = 0; i < count; i++){
		if(!settings_set(&settings, options[i].key, options[i].value, error)){
			mosquitto_log_printf(MOSQ_LOG_ERR, "%s", error);
			return false;
		}
	}
	if(!settings_complete(&settings, error)){
		mosquitto_log_printf(MOSQ_LOG_ERR, "%s", error);
		return false;
	}
	if(settings_per_listener()){
		mosquitto_log_printf(MOSQ_LOG_ERR, PER_LISTENER);
		return false;
	}
	if(!held_begin() || !service_start(&settings)){
		mosquitto_log_printf(MOSQ_LOG_ERR, "authsvc: cannot start a thread for the connection to %s", settings.url);
		return false;
	}
	return true;
}

static void tear_down(void)
{
	service_stop();
	held_end();
	settings_end(&settings);
	identifier = NULL;
}

int mosquitto_plugin_version(int count, const int *versions)
{
	for(int i = 0; i < count; i++){
		if(versions[i] == 5) return 5;
	}
	return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *id, void **data, struct mosquitto_opt *options, int count)
{
	*data = NULL;
	if(identifier){
		mosquitto_log_printf(MOSQ_LOG_ERR, "authsvc: the plugin is configured twice; one plugin line serves all listeners");
		return MOSQ_ERR_INVAL;
	}
	identifier = id;
	has_ticked = is_reloading = false;
	if(!set_up(options, count)){
		tear_down();
		return MOSQ_ERR_INVAL;
	}
	for(size_t i = 0; i < CALLBACK_COUNT; i++){
		int failed = mosquitto_callback_register(id, callbacks[i].event, callbacks[i].function, NULL, NULL);
		if(failed){
			tear_down();
			return failed;
		}
	}
	return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *data, struct mosquitto_opt *options, int count)
{
	(void)data, (void)options, (void)count;
	for(size_t i = 0; identifier && i < CALLBACK_COUNT; i++){
		mosquitto_callback_unregister(identifier, callbacks[i].event, callbacks[i].function, NULL);
	}
	tear_down();
	return MOSQ_ERR_SUCCESS;
}
