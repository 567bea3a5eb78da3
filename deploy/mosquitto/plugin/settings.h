/* The plugin_opt_* lines of mosquitto.conf. */

#ifndef AUTHSVC_SETTINGS_H
#define AUTHSVC_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>

#define SETTINGS_NAME_SIZE 65
#define SETTINGS_ERROR_SIZE 512

struct settings {
	char *url;     /* without a slash at the end */
	char *secret;  /* NULL without one */
	char *ca_file; /* NULL for the system's authorities */
	char name[SETTINGS_NAME_SIZE];
	long offline_seconds;
};

/* Begins with the defaults: no URL, 300 seconds, this machine's name. */
void settings_begin(struct settings *settings);

/* Sets one option; on failure returns false and writes a line for the log. The secret never appears in it. */
bool settings_set(struct settings *settings, const char *option, const char *value, char error[SETTINGS_ERROR_SIZE]);

/* Returns whether all is there that is needed, as settings_set does. */
bool settings_complete(const struct settings *settings, char error[SETTINGS_ERROR_SIZE]);

/* Returns whether the broker's configuration file, if it can be found and read, says `per_listener_settings true`. */
bool settings_per_listener(void);

void settings_end(struct settings *settings);

#endif
