const page = document.getElementById("api");
SwaggerUIBundle({ url: page.dataset.description, domNode: page, deepLinking: true, docExpansion: "list" });
