/* The module, by which Python's installers and importers find the library; it is empty. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_extension", NULL, 0, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__extension(void)
{
    return PyModuleDef_Init(&definition);
}
