"""Where photos' steps are taken: on threads of this process, or in processes of their own."""
