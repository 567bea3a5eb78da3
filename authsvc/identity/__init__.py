"""Users that are kept elsewhere: an OpenID provider or an LDAP directory confirms them at each sign-in."""
