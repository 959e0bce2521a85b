"""bentos: the services, one folder an application; web/ is the HTTP front they share."""
