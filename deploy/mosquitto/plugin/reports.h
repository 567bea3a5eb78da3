/* What authsvc is told: the connected clients, logins that were decided from memory, and denials.
 *
 * The broker's thread adds, the background thread takes one report at a time. Reports are small and bounded; what does
 * not fit is counted. After a gap everything connected is reported again under the next generation.
 */

#ifndef AUTHSVC_REPORTS_H
#define AUTHSVC_REPORTS_H

#include <stdbool.h>

/* `boot` and `name` identify this start of this broker; they are kept, not copied. */
void reports_begin(const char *boot, const char *name);
void reports_end(void);

void reports_connected(long long number, const char *username, const char *client_id, const char *address,
		const char *protocol, char credential);
void reports_disconnected(long long number);
void reports_login(const char *username, const char *client_id);
void reports_denial(const char *username, const char *client_id, const char *topic, int access, const char *reason);

/* Returns whether there is anything to report beyond "still here". */
bool reports_pending(void);

/* Returns the next report as JSON, which the caller frees. It counts as sent once reports_sent(true) is called. */
char *reports_next(void);

/* Says whether the last report was stored. If it was not, all connections are reported again. */
void reports_sent(bool stored);

#endif
